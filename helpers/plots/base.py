"""Figures from plain tables and sequences. Every function returns the figure and shows nothing by itself."""

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ..runtime.files import atomic_path

BLUE, ORANGE, GREEN, GREY = "#3b6fb6", "#d9822b", "#4c9a5f", "#8a8f98"
SMALL = 128  # pixels of the longest side
VERDICTS = {None: "black", True: "#2c7a3f", False: "#b3261e"}  # of a caption: not judged, right, wrong


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write the figure as a PNG, whole or not at all."""
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=120, bbox_inches="tight")


def png(figure: Figure, dpi: float | str = "figure") -> bytes:
    """The figure as the content of a PNG file. dpi: "figure" is its own."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


class LiveFigure:
    """A figure in a notebook, redrawn with every call: `train(..., watch=LiveFigure(plot_loss_and_lr))`."""

    def __init__(self, plot: Callable[[pd.DataFrame], Figure]):
        self.plot, self.handle = plot, None

    def __call__(self, table: pd.DataFrame) -> None:
        if self.handle is None:
            self.handle = display(self.plot(table), display_id=True)
        else:
            self.handle.update(self.plot(table))


def draw_picture(axis: Axes, picture: Image.Image) -> None:
    """The picture on this axis; a small one is enlarged without smoothing, so that it stays what the captioner sees."""
    axis.imshow(picture, interpolation="nearest" if max(picture.size) < SMALL else None)
