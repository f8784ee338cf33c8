"""Figures of scores with their intervals, and of the difference between two captioners."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..evaluation.scores import Scores
from .base import BLUE, GREEN, GREY, ORANGE

LABELS = {
    "bleu_1": "BLEU-1", "bleu_2": "BLEU-2", "bleu_3": "BLEU-3", "bleu_4": "BLEU-4", "meteor": "METEOR",
    "rouge_l": "ROUGE-L", "cider": "CIDEr", "clipscore": "CLIPScore", "refclipscore": "RefCLIPScore",
    "words": "words a caption", "copied": "copied from training",
}  # fmt: skip
VERDICTS = {"tie": GREY, "higher": GREEN, "lower": ORANGE}


def plot_scores(scores: dict[str, Scores], names: Sequence[str]) -> Figure:
    """A panel a score, a row for each of the captioners by name: a dot at the score, a line along its 95 % interval.

    names: of the scores; one that was not measured has no panel.
    """
    names = [name for name in names if all(name in each.measured for each in scores.values())]
    figure = Figure(figsize=(10, 0.9 + 0.36 * len(scores)), layout="constrained")
    for axis, name in zip(figure.subplots(1, max(1, len(names)), sharey=True, squeeze=False)[0], names, strict=False):
        for place, each in enumerate(scores.values()):
            score, color = each.measured[name], GREY if place else BLUE
            axis.plot(score.interval, [place, place], color=color, linewidth=2.5, solid_capstyle="round")
            axis.plot(score.value, place, "o", color=color, markersize=6)
            axis.annotate(f"{score.value:.3g}", (score.value, place), (0, 6), textcoords="offset points", ha="center",
                          fontsize=7)  # fmt: skip
        axis.set_title(LABELS.get(name, name), fontsize=9)
        axis.set(yticks=range(len(scores)), yticklabels=list(scores), ylim=(len(scores) - 0.5, -0.7))
        axis.tick_params(labelsize=8)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#e6e8eb")
    return figure


def plot_differences(differences: dict[str, dict[str, Any]], label: str) -> Figure:
    """A row a score, as `Scores.minus` gives them: the difference, its 95 % interval against zero, and the verdict."""
    figure = Figure(figsize=(7, 0.8 + 0.34 * len(differences)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color="#333", linewidth=0.8)
    for place, found in enumerate(differences.values()):
        color = VERDICTS[found["verdict"]]
        axis.plot(found["95_interval"], [place, place], color=color, linewidth=2.5, solid_capstyle="round")
        axis.plot(found["difference"], place, "o", color=color, markersize=6)
        axis.annotate(found["verdict"], (1.01, place), xycoords=("axes fraction", "data"), va="center", color=color)
    axis.set(yticks=range(len(differences)), yticklabels=[LABELS.get(name, name) for name in differences], xlabel=label)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def plot_score_and_truth(scores: np.ndarray, wrong: Sequence[int], label: str = "CIDEr of the caption") -> Figure:
    """A dot a caption: its score against how many facts it has wrong; a line at the mean of each number."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis, wrong = figure.subplots(), np.asarray(wrong)
    aside = np.random.default_rng(0).uniform(-0.25, 0.25, size=len(wrong))
    axis.scatter(wrong + aside, scores, s=10, color=BLUE, alpha=0.35, linewidth=0)
    for number in np.unique(wrong):
        axis.plot([number - 0.35, number + 0.35], [scores[wrong == number].mean()] * 2, color=ORANGE, linewidth=2)
    axis.set(xticks=np.unique(wrong), xlabel="facts that the caption has wrong", ylabel=label)
    axis.spines[["top", "right"]].set_visible(False)
    return figure
