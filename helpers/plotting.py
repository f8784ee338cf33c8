"""Figures from plain tables and sequences. Every function returns the figure and shows nothing by itself."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from .atomic import atomic_path

BLUE, ORANGE, GREEN, GREY = "#3b6fb6", "#d9822b", "#4c9a5f", "#8a8f98"


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write the figure as a PNG, whole or not at all."""
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=120, bbox_inches="tight")


def plot_loss_and_lr(history: pd.DataFrame, title: str = "") -> Figure:
    """Training and validation loss over the steps, and the learning rates on a second axis, as the original drew them.

    history: columns step, loss, val_loss (NaN where not measured), lr, gpt2_lr, as in a run's history.csv.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(history.step, history.loss, color=BLUE, linewidth=1.2, label="training loss")
    measured = history[history.val_loss.notna()]
    axis.plot(measured.step, measured.val_loss, color=ORANGE, marker="o", markersize=4, label="validation loss")
    axis.set(xlabel="step", ylabel="loss (nats a token)", title=title)
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


def show_pictures(
    pictures: Sequence[Image.Image], captions: Sequence[str], columns: int = 4, good: Sequence[bool] | None = None
) -> Figure:
    """Pictures in a grid with a caption under each; with `good`, the captions are green where true and red elsewhere."""
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(2.6 * columns, 3.0 * rows), layout="constrained")
    for place, axis in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axis.axis("off")
        if place < len(pictures):
            axis.imshow(pictures[place])
            color = "black" if good is None else "#2c7a3f" if good[place] else "#b3261e"
            # A dollar sign in a caption is a dollar sign, not mathematics.
            axis.set_title(captions[place], fontsize=8, wrap=True, y=-0.02, va="top", color=color, parse_math=False)
    return figure
