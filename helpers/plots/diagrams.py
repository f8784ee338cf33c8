"""Diagrams that explain the model: what GPT-2 reads, what it may look at, and what it must predict."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

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
