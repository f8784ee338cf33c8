"""Figures of scores show what was measured, and the verdict in words."""

import numpy as np
import pandas as pd
from PIL import Image

from helpers.evaluation.bootstrap import Score
from helpers.evaluation.scores import Scores
from helpers.experiments.significance import paired_effects
from helpers.plots.base import png
from helpers.plots.captions import show_pictures, show_rows
from helpers.plots.scores import (
    plot_confusion,
    plot_differences,
    plot_effects,
    plot_reliability,
    plot_score_and_truth,
    plot_scores,
)
from helpers.plots.training import plot_loss_and_lr


def scores(level: float, *names: str) -> Scores:
    """Scores of 50 captions around `level`."""
    values = np.random.default_rng(0).normal(level, 0.1, size=50)
    return Scores({name: Score.mean(values) for name in names}, {}, {}, "words")


def test_there_is_a_panel_per_score_that_all_have_and_a_row_per_captioner():
    both = {"ours": scores(0.6, "bleu_4", "cider").measured, "none": scores(0.2, "bleu_4").measured}
    figure = plot_scores(both, ["meteor", "bleu_4", "cider"])
    (axis,) = figure.axes
    assert axis.get_title() == "BLEU-4"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ours", "none"]
    assert [text.get_text() for text in axis.texts] == [f"{each['bleu_4'].value:.3g}" for each in both.values()]


def test_a_confusion_has_a_share_and_its_interval_in_each_cell():
    table = {"woman": {"pictures": 1_200, "woman": [0.7, 0.6, 0.8], "woman and man": [0.0, 0.0, 0.0]}}
    (axis,) = plot_confusion({"gender": table}).axes
    assert [text.get_text() for text in axis.texts] == ["70\n60 to 80", "0"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["woman", "woman\nand man"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["woman (1,200)"]


def test_a_dollar_sign_in_a_name_begins_no_formula():
    name = r"runs/$\frac{1$"
    measured = scores(0.6, "cider")
    history = pd.DataFrame({"step": [0, 1], "loss": [2.0, 1.0], "val_loss": [2.0, 1.0], "lr": 0.1, "gpt2_lr": 0.1})
    runs = pd.DataFrame({"clip": [name, "tiny"] * 2, "seed": [0, 0, 1, 1], "val_loss": [1.0, 2.0, 1.0, 2.5]})
    effects = paired_effects(runs, "clip", measure="val_loss", base="tiny")
    for figure in (
        plot_scores({name: measured.measured}, ["cider"]),
        plot_differences(measured.minus(measured), name),
        plot_loss_and_lr(history, title=name),
        plot_effects({name: effects}, name),
        show_pictures([Image.new("RGB", (9, 9))], [name]),
        show_rows({name: [(Image.new("RGB", (9, 9)), name, None)]}),
    ):
        assert png(figure)


def test_nothing_measured_is_an_empty_figure():
    assert len(plot_scores({"ours": scores(0.6).measured}, ["cider"]).axes) == 1


def test_differences_have_their_verdict_beside_them():
    one, two = scores(0.6, "cider", "words"), scores(0.2, "cider", "words")
    (axis,) = plot_differences(one.minus(two), "one minus two").axes
    assert [text.get_text() for text in axis.texts] == ["higher", "higher"]
    (axis,) = plot_differences(one.minus(one), "one minus one").axes
    assert [text.get_text() for text in axis.texts] == ["no difference shown"] * 2


def test_a_line_at_the_mean_of_each_number_of_wrong_facts():
    (axis,) = plot_score_and_truth(np.array([5.0, 3.0, 1.0]), [0, 0, 2]).axes
    assert [line.get_ydata()[0] for line in axis.get_lines()] == [4.0, 1.0]


def test_a_forest_plot_has_a_row_per_arm_with_its_interval_and_a_line_at_zero():
    table = pd.DataFrame([["runs/photo/encoder", 0.3, 0, None, None, 5, "base"],
                          ["runs/untrained/encoder", 0.1, -0.2, -0.3, -0.1, 5, "lower"],
                          ["none", 0.32, 0.02, -0.1, 0.14, 5, "no difference shown"]],
                         columns=["clip", "mean", "difference", "low", "high", "seeds", "verdict"])  # fmt: skip
    (axis,) = plot_effects({"image encoder": table}, "CIDEr").axes
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["image encoder, against photo/encoder", "untrained/encoder", "none"]
    zero, interval, dot, unclear, _ = axis.get_lines()
    assert [list(line.get_xdata()) for line in (zero, interval, dot)] == [[0, 0], [-0.3, -0.1], [-0.2]]
    assert interval.get_color() != unclear.get_color()


def test_reliability_has_a_dot_per_bin_with_its_interval_and_the_diagonal():
    curve = pd.DataFrame({"number": [1, 3], "confidence": [0.2, 0.9], "right": [0.5, 0.8], "low": 0.1, "high": 0.95})
    first, second = plot_reliability({"one": curve, "two": curve}).axes
    assert [first.get_title(), second.get_title()] == ["one", "two"]
    intervals, dots = first.collections
    assert dots.get_offsets().tolist() == [[0.2, 0.5], [0.9, 0.8]]
    assert dots.get_sizes()[0] < dots.get_sizes()[1]
    assert [segment[:, 1].tolist() for segment in intervals.get_segments()] == [[0.1, 0.95]] * 2
    assert list(first.get_lines()[0].get_xdata()) == [0, 1]
