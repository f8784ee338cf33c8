"""Figures of training: loss and learning rate, learning curves, time to quality."""

import itertools

import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from .base import BLUE, GREEN, GREY, ORANGE


def plot_loss_and_lr(history: pd.DataFrame, title: str = "") -> Figure:
    """Return training and validation loss over the steps, with the learning rates on a second axis as in the original.

    history: the columns step, loss and val_loss (nats per token; NaN if not measured), lr and gpt2_lr, as in a run's
    history.csv.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(history.step, history.loss, color=BLUE, linewidth=1.2, label="training loss")
    measured = history[history.val_loss.notna()]
    axis.plot(measured.step, measured.val_loss, color=ORANGE, marker="o", markersize=4, label="validation loss")
    axis.set(xlabel="optimizer steps", ylabel="loss (nats per token)")
    axis.set_title(title, parse_math=False)  # a dollar sign in the name of a run begins no formula
    rates = axis.twinx()
    rates.plot(history.step, history.lr, color=GREY, linewidth=1, linestyle="--", label="learning rate, mapping module")
    rates.plot(history.step, history.gpt2_lr, color=GREEN, linewidth=1, linestyle=":", label="learning rate, GPT-2")
    rates.set(ylabel="learning rate", yscale="linear")
    rates.set_ylim(bottom=0)
    for each in (axis, rates):
        each.spines["top"].set_visible(False)
    lines = [*axis.get_lines(), *rates.get_lines()]
    axis.legend(lines, [line.get_label() for line in lines], frameon=False, fontsize=8)
    return figure


def plot_time_to_quality(looks: pd.DataFrame, wanted: float = 0.8) -> Figure:
    """Return the share of right captions against minutes of training: a line per seed, a color per recipe.

    looks: the columns recipe, seed, minutes and correct, as benchmarks/quality.py saves them. wanted: the share at
    which a dashed line is drawn.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    some = itertools.cycle((BLUE, ORANGE, GREEN, GREY, "#8e5ea8", "#b3261e"))
    colors = dict(zip(looks.recipe.unique(), some, strict=False))
    for (recipe, seed), rows in looks.groupby(["recipe", "seed"], sort=False):
        label = recipe if seed == 0 else None
        axis.plot([0.0, *rows.minutes], [0.0, *rows.correct], color=colors[recipe], linewidth=1.4, label=label)
    axis.axhline(wanted, color="#c9ccd1", linewidth=1, linestyle="--")
    axis.set(xlabel="minutes on one CPU thread", ylabel="share of captions\nwith every fact right", ylim=(-0.03, 1))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    return figure


def plot_learning_curve(results: pd.DataFrame, by: str = "train_images") -> Figure:
    """Return the share of right captions against the number of training pictures, for unseen and for seen pictures.

    results: one row per run with the columns `by`, seed, correct and correct_seen, as `ablate` saves them. A dot is a
    run, a bar the 95 % interval of the mean by Student's t over the seeds.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    groups = results.groupby(by)[["correct_seen", "correct"]]
    means = groups.mean()
    half = groups.sem().mul(stats.t.ppf(0.975, groups.count() - 1))  # of the interval; NaN for one seed
    for measure, color, label in (
        ("correct_seen", GREY, "pictures it trained on"),
        ("correct", BLUE, "unseen pictures"),
    ):
        axis.scatter(results[by], results[measure], color=color, alpha=0.35, s=22, linewidth=0)
        axis.errorbar(means.index, means[measure], half[measure], color=color, linewidth=1.6, capsize=3, label=label)
    axis.set(xscale="log", xlabel="training pictures", ylim=(-0.03, 1.03))
    axis.set_ylabel("share of captions\nwith every fact right")
    axis.set_xticks(means.index, [f"{number:,}" for number in means.index])
    axis.minorticks_off()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e6e8eb")
    axis.set_axisbelow(True)
    axis.legend(frameon=False, fontsize=9)
    return figure
