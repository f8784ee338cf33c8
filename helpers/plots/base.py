"""Colors, saving and redrawing, shared by all figures. A plot function returns its figure and shows nothing."""

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ..runtime.files import atomic_path

BLUE, ORANGE, GREEN, GREY = "#3b6fb6", "#d9822b", "#4c9a5f", "#8a8f98"
SMALL = 128  # pixels; a picture with shorter sides is a drawn one, and is enlarged without smoothing
CAPTION_COLORS = {None: "black", True: "#2c7a3f", False: "#b3261e"}  # not judged, right, wrong


def save_figure(figure: Figure, path: str | Path, *, source: str | None = None) -> None:
    """Save the figure as a PNG of 120 dots per inch. A crash leaves no half-written file.

    source: what made it, to be kept in the file.
    """
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=120, bbox_inches="tight", metadata={"Source": source})


def png(figure: Figure, dpi: float | str = "figure") -> bytes:
    """Return the figure as the content of a PNG file. dpi: dots per inch; "figure" is the figure's own number."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


class LiveFigure:
    """A figure in a notebook that every call redraws in place: `train(..., watch=LiveFigure(plot_loss_and_lr))`."""

    def __init__(self, plot: Callable[[pd.DataFrame], Figure]):
        self.plot, self.handle = plot, None

    def __call__(self, table: pd.DataFrame) -> None:
        from IPython.display import display

        if self.handle is None:
            self.handle = display(self.plot(table), display_id=True)
        else:
            self.handle.update(self.plot(table))


def draw_picture(axis: Axes, picture: Image.Image) -> None:
    """Draw the picture on this axis; a small one without smoothing, so that it shows the pixels of the captioner."""
    axis.imshow(picture, interpolation="nearest" if max(picture.size) < SMALL else None)
