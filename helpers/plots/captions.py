"""Figures of single captions: pictures in rows, words shaded by confidence, where each word looked."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from IPython import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from .base import VERDICTS, draw_picture, png


def show_pictures(
    pictures: Sequence[Image.Image], captions: Sequence[str], columns: int = 4, good: Sequence[bool] | None = None
) -> Figure:
    """Pictures in a grid with a caption under each; with `good`, the captions are green or red."""
    captions = [textwrap.fill(caption, 38) for caption in captions]
    rows = max(1, -(-len(pictures) // columns))
    figure = Figure(figsize=(2.6 * columns, 3.1 * rows), layout="constrained")  # room for three lines of caption
    for place, axis in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        if place < len(pictures):
            draw_picture(axis, pictures[place])
            color = VERDICTS[None if good is None else bool(good[place])]
            # A dollar sign in a caption is a dollar sign, not mathematics.
            axis.set_xlabel(captions[place], fontsize=8, color=color, parse_math=False)
    return figure


SHADES = "Blues"
DPI = 80  # many pictures and words, and notebooks are to stay small
TELLING = 0.15  # attention from which on it is written into the figure
DARK = 0.6  # a shade above which text on it is white
LETTER = 0.094  # inches of a monospaced letter in 9 points, with a little air


def show_rows(rows: Mapping[str, Sequence[tuple[Image.Image, str, bool | None]]]) -> Figure:
    """For each title a row of pictures with a text under each, green where it is right and red where it is wrong.

    Rows may differ in length. The third of each is None where nobody knows what is right.
    """
    columns = max((len(row) for row in rows.values()), default=1)
    figure = Figure(figsize=(1.95 * columns + 0.3, 2.55 * max(1, len(rows))), layout="constrained", dpi=DPI)
    grid = figure.subplots(max(1, len(rows)), max(1, columns), squeeze=False)
    for axis in grid.flat:
        _bare(axis)
    for axes, (title, row) in zip(grid, rows.items(), strict=False):
        axes[0].set_ylabel(title, fontsize=10, fontweight="bold", parse_math=False)
        for axis, (picture, text, right) in zip(axes, row, strict=False):
            draw_picture(axis, picture)
            lines = "\n".join(textwrap.fill(line, 31) for line in text.split("\n"))
            axis.set_xlabel(lines, fontsize=8, color=VERDICTS[right], parse_math=False)
    return figure


def as_image(figure: Figure) -> display.Image:
    """IPython's image of a figure, for one that grows with what it shows: a notebook describes every image alike."""
    return display.Image(png(figure))


def plot_confidence(pictures: Sequence[Image.Image], sure: Sequence[Sequence[tuple[str, float]]]) -> Figure:
    """A picture a row, and beside it the words of its caption: the darker, the surer, with the probability below each.

    sure: as `insight.word_confidence` returns it.
    """
    widths = [[max(len(word), 4) + 1 for word, _ in words] for words in sure]  # in letters
    longest = max(sum(row) for row in widths)
    figure = Figure(figsize=(1.1 + LETTER * longest, 0.85 * len(sure)), layout="constrained", dpi=DPI)
    grid = figure.subplots(len(sure), 2, squeeze=False, width_ratios=[0.9, LETTER * longest])
    for (left, right), picture, words, row in zip(grid, pictures, sure, widths, strict=True):
        for axis in (left, right):
            _bare(axis)
        draw_picture(left, picture)
        right.set(xlim=(0, longest), ylim=(0, 1))
        at = 0
        for (word, probability), width in zip(words, row, strict=True):
            right.barh(0.62, width - 0.25, left=at, height=0.5, color=_shade(probability))
            right.text(at + width / 2 - 0.12, 0.62, word, ha="center", va="center", fontsize=9, family="monospace",
                       color=_ink(probability), parse_math=False)  # fmt: skip
            right.text(at + width / 2 - 0.12, 0.2, f"{probability:.2f}", ha="center", va="center", fontsize=7,
                       color="#5f6670")  # fmt: skip
            at += width
    return figure


def plot_attention(pictures: Sequence[Image.Image], looks: Sequence[tuple[Sequence[str], np.ndarray]]) -> Figure:
    """A picture a column, and under it how each word's attention is shared between prefix vectors and words before.

    looks: words and attention [W, P], as `insight.attention_to_prefix` returns them.
    """
    looks = [(words, _with_the_rest(np.asarray(to_prefix))) for words, to_prefix in looks]
    longest = max(len(words) for words, _ in looks)
    figure = Figure(figsize=(3.1 * len(looks), 1.3 + 0.22 * longest), layout="constrained", dpi=DPI)
    grid = figure.subplots(2, len(looks), squeeze=False, height_ratios=[1.1, 0.22 * longest])
    for (upper, lower), picture, (words, attention) in zip(grid.T, pictures, looks, strict=True):
        names = [*(f"prefix {slot}" for slot in range(1, attention.shape[1])), "words\nbefore"]
        _bare(upper)
        draw_picture(upper, picture)
        lower.imshow(attention, cmap=SHADES, vmin=0, vmax=1, aspect="auto")
        lower.set(yticks=range(len(words)), xticks=range(len(names)))
        lower.set_yticklabels(words, fontsize=8, parse_math=False)
        lower.set_xticklabels(names, fontsize=7, parse_math=False)
        lower.tick_params(length=0)
        lower.spines[:].set_visible(False)
        for (word, slot), value in np.ndenumerate(attention):
            if value >= TELLING:
                lower.text(slot, word, f"{value:.1f}", ha="center", va="center", fontsize=7, color=_ink(value))
    return figure


def _with_the_rest(attention: np.ndarray) -> np.ndarray:
    """Attention [W, P] and, in a last column, what is left of 1: [W, P+1]."""
    return np.column_stack([attention, np.maximum(0, 1 - attention.sum(axis=1))])


def _bare(axis: Axes) -> None:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _shade(value: float) -> tuple[float, float, float, float]:
    from matplotlib import colormaps

    return colormaps[SHADES](value * 0.9)


def _ink(value: float) -> str:
    return "white" if value > DARK else "#1f2328"
