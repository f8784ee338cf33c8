"""Figures of scores with their intervals, of the difference between two captioners, and of effects of settings."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .base import BLUE, GREY, ORANGE

LABELS = {
    "bleu_1": "BLEU-1", "bleu_2": "BLEU-2", "bleu_3": "BLEU-3", "bleu_4": "BLEU-4", "meteor": "METEOR",
    "rouge_l": "ROUGE-L", "cider": "CIDEr", "clipscore": "CLIPScore", "refclipscore": "RefCLIPScore",
    "words": "words per caption", "copied": "share copied\nfrom training",
}  # fmt: skip
EFFECT_COLORS = {"higher": BLUE, "lower": ORANGE, "no difference shown": GREY}


class Measured(Protocol):
    """A score and its 95 % interval (low, high)."""

    @property
    def value(self) -> float: ...

    @property
    def interval(self) -> tuple[float, float]: ...


def plot_scores(scores: Mapping[str, Mapping[str, Measured]], names: Sequence[str]) -> Figure:
    """Return one panel per score and in it one row per captioner: a dot at the score, a line along its 95 % interval.

    scores: {captioner: {name: score}}; each inner mapping is a `Scores.measured`. names: the scores to show; one that
    was not measured for every captioner gets no panel. The first captioner is blue, the others are grey.
    """
    names = [name for name in names if all(name in each for each in scores.values())]
    figure = Figure(figsize=(10, 0.9 + 0.36 * len(scores)), layout="constrained")
    for axis, name in zip(figure.subplots(1, max(1, len(names)), sharey=True, squeeze=False)[0], names, strict=False):
        for place, each in enumerate(scores.values()):
            score, color = each[name], GREY if place else BLUE
            axis.plot(score.interval, [place, place], color=color, linewidth=2.5, solid_capstyle="round")
            axis.plot(score.value, place, "o", color=color, markersize=6)
            axis.annotate(f"{score.value:.3g}", (score.value, place), (0, 6), textcoords="offset points", ha="center",
                          fontsize=7)  # fmt: skip
        axis.set_title(LABELS.get(name, name), fontsize=9)
        axis.set(yticks=range(len(scores)), ylim=(len(scores) - 0.5, -0.7))
        axis.set_yticklabels(list(scores), parse_math=False)
        axis.tick_params(labelsize=8)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#e6e8eb")
    return figure


def plot_differences(differences: Mapping[str, Mapping[str, Any]], label: str) -> Figure:
    """Return one row per score: the difference between two captioners, its 95 % interval against zero, the verdict.

    differences: as `Scores.minus` returns them. label: what is subtracted from what, under the horizontal axis.
    """
    figure = Figure(figsize=(7, 0.8 + 0.34 * len(differences)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color="#333", linewidth=0.8)
    for place, found in enumerate(differences.values()):
        color = EFFECT_COLORS[found["verdict"]]
        axis.plot(found["95_interval"], [place, place], color=color, linewidth=2.5, solid_capstyle="round")
        axis.plot(found["difference"], place, "o", color=color, markersize=6)
        axis.annotate(found["verdict"], (1.01, place), xycoords=("axes fraction", "data"), va="center", color=color)
    axis.set(yticks=range(len(differences)), yticklabels=[LABELS.get(name, name) for name in differences])
    axis.set_xlabel(label, parse_math=False)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def plot_effects(effects: Mapping[str, pd.DataFrame], label: str) -> Figure:
    """Return a forest plot: one row per arm, its difference from the base, the 95 % interval, and a line at zero.

    effects: {heading: table of `paired_effects`, whose first column names the arms}; every table is a block of rows
    under its heading, with the base named there. label: of the horizontal axis. Grey is a difference that is not shown.
    """
    rows: list[tuple[str, pd.Series | None]] = []
    for heading, table in effects.items():
        rows.append((f"{heading}, against {_arm(table.iloc[0, 0])}", None))
        rows.extend((_arm(row.iloc[0]), row) for _, row in table.iloc[1:].iterrows())
    figure = Figure(figsize=(8, 0.7 + 0.27 * len(rows)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color="#333", linewidth=0.8)
    for place, (_, row) in enumerate(rows):
        if row is not None:
            color = EFFECT_COLORS[row.verdict]
            axis.plot([row.low, row.high], [place, place], color=color, linewidth=2.5, solid_capstyle="round")
            axis.plot(row.difference, place, "o", color=color, markersize=5)
    axis.set(yticks=range(len(rows)))
    axis.set_yticklabels([name for name, _ in rows], parse_math=False)
    axis.set_xlabel(label, parse_math=False)
    for tick, (_, row) in zip(axis.get_yticklabels(), rows, strict=True):
        tick.set(fontsize=8, fontweight="normal" if row is not None else "bold")
    axis.set_ylim(len(rows) - 0.5, -0.7)
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.grid(axis="x", color="#e6e8eb")
    axis.set_axisbelow(True)
    return figure


def _arm(value: object) -> str:
    """Return an arm's name: of a path, such as that of an encoder, the last folders."""
    return "/".join(str(value).split("/")[-2:])


def plot_score_and_truth(scores: np.ndarray, wrong: Sequence[int], label: str = "CIDEr of the caption") -> Figure:
    """Return one dot per caption: its score against its number of wrong facts, and a line at the mean of each number.

    scores: [N]. wrong: the number of wrong facts of each of the N captions.
    """
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis, wrong = figure.subplots(), np.asarray(wrong)
    aside = np.random.default_rng(0).uniform(-0.25, 0.25, size=len(wrong))  # so that the dots do not hide each other
    axis.scatter(wrong + aside, scores, s=10, color=BLUE, alpha=0.35, linewidth=0)
    for number in np.unique(wrong):
        axis.plot([number - 0.35, number + 0.35], [scores[wrong == number].mean()] * 2, color=ORANGE, linewidth=2)
    axis.set(xticks=np.unique(wrong), xlabel="wrong facts in the caption", ylabel=label)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def plot_reliability(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Return one panel per curve: the share that is right against the confidence, with its 95 % interval.

    curves: by title; each as `reliability` in analysis/calibration.py returns it. The diagonal is a captioner that is
    as often right as it is sure; dots below it are overconfident. The larger a dot, the more statements it stands for.
    """
    figure = Figure(figsize=(3.4 * len(curves), 3.2), layout="constrained")
    for axis, (title, curve) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
        axis.vlines(curve.confidence, curve.low, curve.high, color=BLUE, linewidth=1.5)
        axis.plot(curve.confidence, curve.right, color=BLUE, linewidth=0.8)
        axis.scatter(
            curve.confidence, curve.right, s=15 + 150 * curve.number / curve.number.sum(), color=BLUE, zorder=3
        )
        axis.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal", xlabel="confidence", ylabel="share right")
        axis.set_title(title, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def plot_confusion(tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Figure:
    """Return one panel per table: the shares of what captions name in each row of what their references name, in %.

    tables: by title; each as `confusion` in evaluation/people.py returns it. Below a share stands its 95 % interval,
    unless the bootstrap has none: no caption of the row, or every one, names it.
    """
    rows = max(len(table) for table in tables.values())
    figure = Figure(figsize=(5.4 * len(tables), 1.1 + 0.5 * rows), dpi=80, layout="constrained")
    for axis, (title, table) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        columns = [name for name in next(iter(table.values())) if name != "pictures"]
        shares = np.array([[row[column][0] for column in columns] for row in table.values()])
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
        for (row, column), share in np.ndenumerate(shares):
            low, high = list(table.values())[row][columns[column]][1:]
            between = f"\n{100 * low:.0f} to {100 * high:.0f}" if low < high else ""
            axis.text(column, row, f"{100 * share:.0f}{between}", ha="center", va="center", fontsize=8)
        axis.set(xticks=range(len(columns)), yticks=range(len(table)), xlabel="the caption names, in %")
        axis.set_xticklabels([name.replace(" and ", "\nand ") for name in columns], fontsize=8)
        axis.set_yticklabels([f"{name} ({row['pictures']:,})" for name, row in table.items()], fontsize=8)
        axis.set_ylabel("most references name (pictures)", fontsize=8)
        axis.set_title(title, fontsize=9)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    return figure
