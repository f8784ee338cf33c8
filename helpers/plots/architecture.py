"""The diagram of the architecture, for a light and for a dark page: the road from pixels and caption to the loss."""

import textwrap
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image


@dataclass(frozen=True)
class Theme:
    """Colors of one page: each pair is the outline and the fill."""

    page: str
    ink: str
    soft: str
    data: tuple[str, str]
    frozen: tuple[str, str]
    trained: tuple[str, str]


LIGHT = Theme("#ffffff", "#1f2328", "#59636e", ("#8c959f", "#f1f3f5"), ("#3b6fb6", "#dce8f7"), ("#c46a12", "#fde7cf"))
DARK = Theme("#0d1117", "#f0f6fc", "#9ea7b3", ("#6e7681", "#21262d"), ("#6ea8fe", "#152c4f"), ("#f0a050", "#4a2c0c"))

WORDS = 4  # places for the caption's words and the end that is learned with them
PREFIX = 4
ROW = 0.62  # height of one place of the sequence; all lengths are in half inches
TOP = 6.05  # y of the first place


def plot_architecture(picture: Image.Image, caption: str, theme: Theme = LIGHT) -> Figure:
    """Return the road from pixels and caption to the loss: what is frozen, what trains, and the shapes between.

    The words of a long caption are cut to the first two.
    """
    words = caption.split()
    words = [*(words if len(words) < WORDS else [*words[: WORDS - 2], "…"]), "<end>"]
    figure = Figure(figsize=(9.4, 3.7), facecolor=theme.page)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 18.8), ylim=(0, 7.4))
    axis.axis("off")
    pen = _Pen(axis, theme)
    _draw_image_lane(pen, picture)
    _draw_caption_lane(pen, caption, words)
    _draw_gpt2(pen, words)
    _draw_legend(pen)
    return figure


def _draw_image_lane(pen: "_Pen", picture: Image.Image) -> None:
    middle = TOP - 1.5 * ROW
    pen.axis.imshow(picture, extent=(0.35, 2.15, middle - 0.9, middle + 0.9), zorder=3)
    pen.axis.set(xlim=(0, 18.8), ylim=(0, 7.4), aspect="auto")
    pen.note(1.25, middle + 1.1, "pixel values\n[B, 3, H, W]", above=True)
    pen.box(2.75, middle - 0.9, 1.7, 1.8, "CLIP", "frozen")
    pen.box(5.05, middle - 0.9, 1.85, 1.8, "embedding\ncache", "data")
    pen.note(5.98, middle + 1.1, "[B, D], once\nper image", above=True)
    pen.box(7.5, middle - 0.9, 1.85, 1.8, "mapping\nmodule", "trained")
    for start, end in ((2.15, 2.75), (4.45, 5.05), (6.9, 7.5), (9.35, 9.95)):
        pen.arrow(start, middle, end, middle)
    for number in range(PREFIX):
        pen.place(9.95, number, f"prefix {number + 1}", "data")
    pen.note(10.75, TOP + 0.45, f"prefix\n[B, {PREFIX}, E]", above=True)


def _draw_caption_lane(pen: "_Pen", caption: str, words: list[str]) -> None:
    middle = TOP - (PREFIX + 1.5) * ROW - 0.25
    pen.box(0.35, middle - 0.65, 3.4, 1.3, textwrap.fill(f"“{caption}”", 18), "data")
    pen.note(2.05, middle - 1.0, "caption")
    pen.box(4.35, middle - 0.65, 2.55, 1.3, "tokens", "data")
    pen.note(5.62, middle - 1.0, "caption tokens [B, T]")
    pen.box(7.5, middle - 0.65, 1.85, 1.3, "wte", "trained")
    pen.note(8.42, middle - 1.0, "token embeddings")
    for start, end in ((3.75, 4.35), (6.9, 7.5), (9.35, 9.95)):
        pen.arrow(start, middle, end, middle)
    for number, word in enumerate(words):
        pen.place(9.95, PREFIX + number, word, "data", gap=True)
    pen.note(10.75, TOP - (PREFIX + len(words)) * ROW - 0.2, "[B, T, E]")


def _draw_gpt2(pen: "_Pen", words: list[str]) -> None:
    bottom, height = TOP - (PREFIX + len(words) - 0.5) * ROW - 0.25, (PREFIX + len(words)) * ROW + 0.25
    for left, kind in ((12.15, "trained"), (12.65, "frozen"), (13.15, "frozen"), (13.65, "frozen"), (14.15, "trained")):
        pen.box(left, bottom, 0.4, height, "", kind)
    pen.note(13.35, TOP + 0.45, "GPT-2: only first and\nlast block train", above=True)
    middle = bottom + height / 2
    pen.arrow(11.55, middle, 12.1, middle)
    pen.arrow(14.6, middle, 15.15, middle)
    targets = [None] * (PREFIX - 1) + words + [None]
    for number, word in enumerate(targets):
        pen.place(15.2, number, word or "-", "data" if word else None, gap=number >= PREFIX)
    pen.note(16.0, TOP + 0.45, "logits [B, T, V]\nscore the targets", above=True)
    pen.arrow(16.85, middle, 17.35, middle)
    pen.axis.text(18.05, middle, "one\nloss", ha="center", va="center", fontsize=11, color=pen.theme.ink, weight="bold")


def _draw_legend(pen: "_Pen") -> None:
    left = 0.35
    for kind, text, width in (("frozen", "frozen", 2.0), ("trained", "trained", 2.2), ("data", "data", 1.8)):
        pen.box(left, 0.28, 0.4, 0.4, "", kind)
        pen.axis.text(left + 0.55, 0.48, text, va="center", fontsize=9, color=pen.theme.ink)
        left += width
    text = "B batch · T caption tokens · D width of CLIP · E width of GPT-2 · V vocabulary"
    pen.axis.text(18.5, 0.48, text, va="center", ha="right", fontsize=9, color=pen.theme.soft)


@dataclass(frozen=True)
class _Pen:
    axis: Axes
    theme: Theme

    def box(self, left: float, bottom: float, width: float, height: float, text: str, kind: str) -> None:
        edge, fill = getattr(self.theme, kind)
        shape = FancyBboxPatch((left, bottom), width, height, "round,pad=0,rounding_size=0.12", edgecolor=edge,
                               facecolor=fill, linewidth=1.4)  # fmt: skip
        self.axis.add_patch(shape)
        self.axis.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", fontsize=10.5,
                       color=self.theme.ink)  # fmt: skip

    def place(self, left: float, number: int, text: str, kind: str | None, gap: bool = False) -> None:
        """Draw one place of the sequence; the words stand a little below the prefix."""
        middle = TOP - number * ROW - (0.25 if gap else 0)
        if kind:
            edge, fill = getattr(self.theme, kind)
            box = Rectangle((left, middle - ROW / 2 + 0.05), 1.6, ROW - 0.1, edgecolor=edge, facecolor=fill)
            self.axis.add_patch(box)
        color = self.theme.ink if kind else self.theme.soft
        self.axis.text(left + 0.8, middle, text, ha="center", va="center", fontsize=9, color=color)

    def note(self, x: float, y: float, text: str, above: bool = False) -> None:
        align = "bottom" if above else "center"
        self.axis.text(x, y, text, ha="center", va=align, fontsize=9, color=self.theme.soft, linespacing=1.25)

    def arrow(self, x: float, y: float, to_x: float, to_y: float) -> None:
        style = {"arrowstyle": "-|>", "color": self.theme.soft, "linewidth": 1.3, "shrinkA": 2, "shrinkB": 1}
        self.axis.annotate("", (to_x, to_y), (x, y), arrowprops=style)
