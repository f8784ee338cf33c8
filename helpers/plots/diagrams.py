"""Diagrams that explain the model: causal mask and targets, the mapping modules, what of GPT-2 trains."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle

from .base import BLUE, GREY, ORANGE

INK, EMPTY = "#1f2328", "#f1f3f5"


def plot_prefix_and_words(words: Sequence[str], prefix_length: int) -> Figure:
    """Return the causal mask over P prefix vectors and the words behind them, with the target of each place beside it.

    words: the caption's tokens as they are fed, without end-of-text. A filled square says that the row's place may look
    at the column's. The last of the prefix predicts the first word, and the last word predicts end-of-text.
    """
    fed = [*(f"prefix {number + 1}" for number in range(prefix_length)), *words]
    targets = [*["no target"] * (prefix_length - 1), *words, "end of text"]
    size = len(fed)
    figure = Figure(figsize=(2.6 + 0.5 * size, 1.3 + 0.33 * size), layout="constrained", dpi=90)
    axis = figure.subplots()
    for row, column in np.ndindex(size, size):
        color = EMPTY if column > row else ORANGE if column < prefix_length else BLUE
        axis.add_patch(Rectangle((column - 0.44, row - 0.44), 0.88, 0.88, facecolor=color, edgecolor="none"))
    axis.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal", xticks=range(size), yticks=range(size))
    axis.set_xticklabels(fed, rotation=50, ha="left", fontsize=9, parse_math=False)
    axis.set_yticklabels(fed, fontsize=9, parse_math=False)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    for row, target in enumerate(targets):
        learned = row >= prefix_length - 1
        axis.text(size - 0.2, row, f"→ {target}" if learned else target, va="center", fontsize=9,
                  color=INK if learned else GREY, fontweight="bold" if learned else "normal",
                  parse_math=False)  # fmt: skip
    axis.text(-0.5, size + 0.2, "each row is a place; filled: what it may look at; right: what it must predict",
              fontsize=8, color=GREY)  # fmt: skip
    return figure


MAPPER_STEPS = {  # what each mapping module does, from the embedding to the prefix; data in brackets
    "mlp": ("[B, D]", "Linear D → P·E / 2", "tanh", "Linear → P·E", "[B, P, E]"),
    "encoder": ("[B, D]", "[B, 1, D]", "{layers} encoder layers of width D", "Linear D → P·E", "[B, P, E]"),
    "queries": (
        "[B, D]",
        "Linear D → E, and P learned queries",
        "[B, 1 + P, E]",
        "{layers} encoder layers of width E",
        "the last P, Linear E → E",
        "[B, P, E]",
    ),
}


def plot_mappers(layers: int = 6) -> Figure:
    """Return the three designs of the mapping module side by side, each from the embedding down to the prefix."""
    figure = Figure(figsize=(9, 4.2), layout="constrained", dpi=90)
    for axis, (name, steps) in zip(figure.subplots(1, len(MAPPER_STEPS)), MAPPER_STEPS.items(), strict=True):
        axis.set(xlim=(0, 10), ylim=(-0.6, 5.6))
        axis.axis("off")
        axis.set_title(name, fontsize=11, fontweight="bold", color=INK)
        heights = np.linspace(5, 0, len(steps))
        for height, step in zip(heights, steps, strict=True):
            _draw_step(axis, height, step.format(layers=layers))
        for upper, lower in pairwise(heights):
            axis.annotate("", (5, lower + 0.3), (5, upper - 0.3), arrowprops={"arrowstyle": "-|>", "color": GREY})
    return figure


def _draw_step(axis: Axes, height: float, text: str) -> None:
    data = text.startswith("[")
    if not data:
        shape = FancyBboxPatch((0.4, height - 0.28), 9.2, 0.56, "round,pad=0,rounding_size=0.12", facecolor="#fde7cf",
                               edgecolor=ORANGE)  # fmt: skip
        axis.add_patch(shape)
    axis.text(5, height, text, ha="center", va="center", fontsize=9, color=BLUE if data else INK,
              fontweight="bold" if data else "normal")  # fmt: skip


def plot_tensor_strip(tensors: Sequence[tuple[str, int, bool]]) -> Figure:
    """Return a model's tensors in their order as two strips: one box per tensor, and each as wide as its parameters.

    tensors: for each its name, its number of parameters, and whether it trains.
    """
    figure = Figure(figsize=(9, 2.3), layout="constrained", dpi=90)
    axis = figure.subplots()
    sizes = np.array([size for _, size, _ in tensors])
    for height, widths in ((1.25, np.ones(len(tensors))), (0, sizes)):
        edges = np.concatenate([[0], np.cumsum(widths) / widths.sum()])
        for (left, right), (_, _, trains) in zip(pairwise(edges), tensors, strict=True):
            axis.add_patch(Rectangle((left, height), right - left, 0.9, facecolor=ORANGE if trains else BLUE,
                                     edgecolor="white", linewidth=0.4))  # fmt: skip
    trained = np.array([trains for *_, trains in tensors])
    axis.set(xlim=(0, 1), ylim=(-0.1, 2.25), xticks=[], yticks=[0.45, 1.7])
    axis.set_yticklabels([f"{sizes.sum():,}\nparameters", f"{len(tensors)}\ntensors"], fontsize=9)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    labels = (f"train: {trained.sum()} tensors, {sizes[trained].sum():,} parameters",
              f"frozen: {(~trained).sum()} tensors, {sizes[~trained].sum():,} parameters")  # fmt: skip
    handles = [Patch(color=color, label=label) for color, label in zip((ORANGE, BLUE), labels, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure
