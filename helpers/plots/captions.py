"""Figures of captions: pictures in a grid or in rows, words shaded by confidence, attention, shaded numbers."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from .base import BLUE, CAPTION_COLORS, ORANGE, draw_picture

if TYPE_CHECKING:
    from IPython.display import Image as ShownImage

SHADES = "Blues"  # matplotlib's color map
RATIOS = LinearSegmentedColormap.from_list("ratios", [ORANGE, "white", BLUE])  # 0 to 2, white at 1
DPI = 80  # dots per inch: these figures hold many pictures and words, and notebooks have to stay small
DARK = 0.6  # a value above which its shade is so dark that the text on it is white
LETTER = 0.094  # inches; the width of a monospaced letter in 9 points, with a little air


def show_pictures(
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    columns: int = 4,
    good: Sequence[bool] | None = None,
) -> Figure:
    """Return a grid of pictures with a caption under each.

    good: whether each caption is right; right ones are then green and wrong ones red.
    """
    captions = [textwrap.fill(caption, 38) for caption in captions]
    rows = max(1, -(-len(pictures) // columns))
    figure = Figure(figsize=(2.6 * columns, 3.1 * rows), layout="constrained")  # leaves room for three lines of caption
    for place, axis in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        _strip(axis)
        if place < len(pictures):
            draw_picture(axis, pictures[place])
            color = CAPTION_COLORS[None if good is None else bool(good[place])]
            # Without parse_math=False, matplotlib would read the text between two dollar signs as mathematics.
            axis.set_xlabel(captions[place], fontsize=8, color=color, parse_math=False)
    return figure


def show_rows(rows: Mapping[str, Sequence[tuple[Image.Image, str, bool | None]]]) -> Figure:
    """Return one row of pictures per title, with a text under each picture.

    rows: for each title its (picture, text, right). The text is green if `right` is True, red if it is False, and black
    if it is None because nobody knows. Rows may differ in length.
    """
    columns = max((len(row) for row in rows.values()), default=1)
    figure = Figure(figsize=(1.95 * columns + 0.3, 2.55 * max(1, len(rows))), layout="constrained", dpi=DPI)
    grid = figure.subplots(max(1, len(rows)), max(1, columns), squeeze=False)
    for axis in grid.flat:
        _strip(axis)
    for axes, (title, row) in zip(grid, rows.items(), strict=False):
        axes[0].set_ylabel(title, fontsize=10, fontweight="bold", parse_math=False)
        for axis, (picture, text, right) in zip(axes, row, strict=False):
            draw_picture(axis, picture)
            lines = "\n".join(textwrap.fill(line, 31) for line in text.split("\n"))
            axis.set_xlabel(lines, fontsize=8, color=CAPTION_COLORS[right], parse_math=False)
    return figure


def as_image(figure: Figure, kind: str = "png") -> "ShownImage":
    """Return the figure as IPython's image, for a figure whose size depends on the data, or one of photos ("jpeg").

    A notebook describes a figure by its size and an image always alike, so the stored output holds for other data too.
    A PNG gets a palette of 128 colors, which makes it a third as large.
    """
    from IPython.display import Image as ShownImage

    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, bbox_inches="tight")  # room for captions of four lines
    if kind == "png":
        drawn, buffer = Image.open(buffer).convert("RGB"), io.BytesIO()
        drawn.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
            buffer, "png", optimize=True
        )
    return ShownImage(buffer.getvalue(), format=kind)


def plot_confidence(pictures: Sequence[Image.Image], confidence: Sequence[Sequence[tuple[str, float]]]) -> Figure:
    """Return one row per picture with the words of its caption beside it: the surer the captioner, the darker the word.

    confidence: for each caption its words and their probabilities (0 to 1), as `word_confidence` in
    analysis/introspection.py returns them. The probability stands below each word.
    """
    widths = [[max(len(word), 4) + 1 for word, _ in words] for words in confidence]  # letters
    longest = max(sum(row) for row in widths)
    figure = Figure(figsize=(1.1 + LETTER * longest, 0.85 * len(confidence)), layout="constrained", dpi=DPI)
    grid = figure.subplots(len(confidence), 2, squeeze=False, width_ratios=[0.9, LETTER * longest])
    for (left, right), picture, words, row in zip(grid, pictures, confidence, widths, strict=True):
        for axis in (left, right):
            _strip(axis)
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


def plot_attention(pictures: Sequence[Image.Image], attention: Sequence[tuple[Sequence[str], np.ndarray]]) -> Figure:
    """Return one column per picture, and under it the attention of each word as a multiple of uniform attention.

    attention: for each caption its W words and the ratios [W, P+1] for the P prefix vectors and the words before, NaN
    if there are none; they follow from `attention_by_head` in analysis/introspection.py. Above 1 is blue, below orange.
    """
    longest = max(len(words) for words, _ in attention)
    figure = Figure(figsize=(3.1 * len(attention), 1.3 + 0.22 * longest), layout="constrained", dpi=DPI)
    grid = figure.subplots(2, len(attention), squeeze=False, height_ratios=[1.1, 0.22 * longest])
    for (upper, lower), picture, (words, ratios) in zip(grid.T, pictures, attention, strict=True):
        names = [*(f"prefix {place}" for place in range(1, ratios.shape[1])), "words\nbefore"]
        _strip(upper)
        draw_picture(upper, picture)
        _draw_grid(lower, np.asarray(ratios), words, names, ratio=True)
    return figure


def plot_grid(table: pd.DataFrame, *, ratio: bool = False) -> Figure:
    """Return a grid of the table's numbers, each on a shade: shares of 0 to 1, or ratios, above 1 blue, below orange.

    The names of its index and its columns label the axes.
    """
    size = (1.2 + 0.85 * len(table.columns), 0.9 + 0.32 * len(table))
    figure = Figure(figsize=size, layout="constrained", dpi=DPI)
    axis = figure.subplots()
    _draw_grid(
        axis, table.to_numpy(dtype=float), list(map(str, table.index)), list(map(str, table.columns)), ratio=ratio
    )
    axis.set_ylabel(table.index.name or "", fontsize=8)
    axis.set_xlabel(table.columns.name or "", fontsize=8)
    return figure


def _draw_grid(axis: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, ratio: bool) -> None:
    """Draw the numbers [rows, columns], each on a shade; NaN stays empty."""
    axis.imshow(values, cmap=RATIOS if ratio else SHADES, vmin=0, vmax=2 if ratio else 1 / 0.9, aspect="auto")
    axis.set(yticks=range(len(rows)), xticks=range(len(columns)))
    axis.set_yticklabels(rows, fontsize=8, parse_math=False)
    axis.set_xticklabels(columns, fontsize=7, parse_math=False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            color = _ink(abs(value - 1)) if ratio else _ink(value)
            axis.text(column, row, f"{value:.1f}" if ratio else f"{value:.2f}", ha="center", va="center", fontsize=7,
                      color=color)  # fmt: skip


def _strip(axis: Axes) -> None:
    """Remove ticks and frame."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _shade(value: float) -> tuple[float, float, float, float]:
    return colormaps[SHADES](value * 0.9)


def _ink(value: float) -> str:
    """Return the color of text on a shade."""
    return "white" if value > DARK else "#1f2328"
