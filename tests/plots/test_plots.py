"""Figures show what the tables hold."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.plots.base import LiveFigure, save_figure
from helpers.plots.captions import show_pictures
from helpers.plots.training import plot_learning_curve, plot_loss_and_lr, plot_time_to_quality

ROOT = Path(__file__).parents[2]


def test_loss_and_learning_rate_are_on_one_figure(finished, tmp_path):
    history = finished.history()
    figure = plot_loss_and_lr(history)
    loss, rate = figure.axes
    training, validation = (line.get_xydata() for line in loss.get_lines())
    assert np.array_equal(training, history[["step", "loss"]])
    assert np.array_equal(validation, history[["step", "val_loss"]].dropna())
    assert np.array_equal([line.get_ydata() for line in rate.get_lines()], history[["lr", "gpt2_lr"]].T)
    assert rate.get_ylim()[0] == 0
    save_figure(figure, tmp_path / "new" / "loss_lr.png")
    assert Image.open(tmp_path / "new" / "loss_lr.png").width > 500
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["loss_lr.png"]


def test_a_history_without_rows_is_an_empty_figure(finished, tmp_path):
    save_figure(plot_loss_and_lr(finished.history().head(0)), tmp_path / "empty.png")


def test_the_live_figure_is_shown_once_and_then_updated(finished, monkeypatch):
    shown, updated = [], []

    class Handle:
        def update(self, figure):
            updated.append(figure)

    def display(figure, display_id):
        shown.append(figure)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    live = LiveFigure(plot_loss_and_lr)
    for rows in (1, 2, 3):
        live(finished.history().head(rows))
    assert (len(shown), len(updated)) == (1, 2)


@pytest.mark.parametrize("number", [0, 1, 4, 5])
def test_every_picture_has_its_caption(number, tmp_path):
    captions = ["$5 for a_dog \\ ü " * 6, "", "two\nlines", "a", "b"][:number]
    figure = show_pictures([Image.new("RGB", (9, 5), "red")] * number, captions, good=[True] * number)
    labels = [axis.get_xlabel() for axis in figure.axes if axis.images]
    assert ["".join(label.split()) for label in labels] == ["".join(caption.split()) for caption in captions]
    assert {axis.xaxis.label.get_color() for axis in figure.axes if axis.images} <= {"#2c7a3f"}
    figure.savefig(tmp_path / "pictures.png")


def test_a_learning_curve_has_a_dot_per_run_and_intervals_for_seen_and_unseen():
    results = pd.DataFrame({"train_images": [75, 75, 600, 600], "seed": [0, 1, 0, 1],
                            "correct": [0.1, 0.3, 0.8, 0.8], "correct_seen": [0.9, 1.0, 0.9, 0.9]})  # fmt: skip
    (axis,) = plot_learning_curve(results).axes
    seen, unseen = (bars.lines[0] for bars in axis.containers)
    assert unseen.get_xydata().tolist() == [[75, pytest.approx(0.2)], [600, 0.8]]
    assert seen.get_ydata().tolist() == pytest.approx([0.95, 0.9])
    (spans,) = axis.containers[1].lines[2]
    assert spans.get_segments()[0][:, 1].tolist() == pytest.approx([0.2 - 1.2706, 0.2 + 1.2706], abs=1e-3)
    assert [len(dots.get_offsets()) for dots in axis.collections if hasattr(dots, "get_sizes")] == [4, 4]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["75", "600"]


def test_time_to_quality_is_a_line_per_seed_that_starts_at_zero():
    looks = pd.DataFrame([["ours", 0, 0.1, 0.5], ["ours", 0, 0.2, 0.9], ["ours", 1, 0.1, 0.4], ["theirs", 0, 0.1, 0.1]],
                         columns=["recipe", "seed", "minutes", "correct"])  # fmt: skip
    (axis,) = plot_time_to_quality(looks).axes
    first, second, third, _wanted = axis.get_lines()
    assert first.get_xydata().tolist() == [[0, 0], [0.1, 0.5], [0.2, 0.9]]
    assert first.get_color() == second.get_color() != third.get_color()
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["ours", "theirs"]


def test_time_to_quality_has_colors_for_any_number_of_recipes():
    looks = pd.DataFrame({"recipe": list("abcdefghi"), "seed": 0, "minutes": 0.1, "correct": 0.5})
    assert len(plot_time_to_quality(looks).axes[0].get_lines()) == 10


def test_a_figure_can_be_drawn_and_saved_without_ipython(tmp_path):
    code = """
import sys
sys.modules["IPython"] = None  # an import of it now fails
import pandas as pd
from helpers.plots import captions, scores
from helpers.plots.base import save_figure
from helpers.plots.training import plot_time_to_quality
looks = pd.DataFrame({"recipe": "ours", "seed": [0, 0], "minutes": [0.1, 0.2], "correct": [0.5, 0.6]})
save_figure(plot_time_to_quality(looks), sys.argv[1])
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "figure.png"], check=True, cwd=ROOT)
    assert Image.open(tmp_path / "figure.png").width > 300
