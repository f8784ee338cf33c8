"""Figures of scores show what was measured, and the verdict in words."""

import numpy as np
import pandas as pd

from helpers.evaluation.bootstrap import Score
from helpers.evaluation.scores import Scores
from helpers.plots.scores import plot_differences, plot_reliability, plot_score_and_truth, plot_scores


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


def test_nothing_measured_is_an_empty_figure():
    assert len(plot_scores({"ours": scores(0.6).measured}, ["cider"]).axes) == 1


def test_differences_have_their_verdict_beside_them():
    one, two = scores(0.6, "cider", "words"), scores(0.2, "cider", "words")
    (axis,) = plot_differences(one.minus(two), "one minus two").axes
    assert [text.get_text() for text in axis.texts] == ["higher", "higher"]
    (axis,) = plot_differences(one.minus(one), "one minus one").axes
    assert [text.get_text() for text in axis.texts] == ["tie", "tie"]


def test_a_line_at_the_mean_of_each_number_of_wrong_facts():
    (axis,) = plot_score_and_truth(np.array([5.0, 3.0, 1.0]), [0, 0, 2]).axes
    assert [line.get_ydata()[0] for line in axis.get_lines()] == [4.0, 1.0]


def test_reliability_has_a_dot_per_bin_with_its_interval_and_the_diagonal():
    curve = pd.DataFrame({"number": [1, 3], "confidence": [0.2, 0.9], "right": [0.5, 0.8], "low": 0.1, "high": 0.95})
    first, second = plot_reliability({"one": curve, "two": curve}).axes
    assert [first.get_title(), second.get_title()] == ["one", "two"]
    intervals, dots = first.collections
    assert dots.get_offsets().tolist() == [[0.2, 0.5], [0.9, 0.8]]
    assert dots.get_sizes()[0] < dots.get_sizes()[1]
    assert [segment[:, 1].tolist() for segment in intervals.get_segments()] == [[0.1, 0.95]] * 2
    assert list(first.get_lines()[0].get_xdata()) == [0, 1]
