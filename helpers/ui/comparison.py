"""The explorer's table of captions, to look at and to save as a CSV file or as a picture."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from html import escape
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from ..models.writer import Candidate
from ..plots.base import png
from ..runtime.files import atomic_path
from .html import as_bar, data_url, in_words, picture_url

THUMB = 128  # pixels; the longest side of a picture in the table and in the saved picture
COLUMNS = ("picture", "captioner", "decoding", "caption", "how likely")
TALLEST = 60_000  # pixels; the height of the saved picture, since matplotlib draws less than 2^16


@dataclass(frozen=True)
class Entry:
    """A caption and its origin. name: of the picture. captioner: its name. decoding: in words."""

    name: str
    picture: Image.Image
    captioner: str
    decoding: str
    candidate: Candidate


class Comparison:
    """Entries, oldest first, and the widget that shows and saves them. Texts are escaped, so none becomes HTML."""

    def __init__(self, folder: str | Path = "."):
        """folder: for the saved files."""
        self.folder, self.entries = Path(folder), list[Entry]()
        self.stem = ""  # of the saved files' names, from the first entry on
        self.table, self.message = widgets.HTML(), widgets.HTML()
        self.save_csv = _button("save as CSV", "table", self.folder)
        self.save_picture = _button("save as picture", "image", self.folder)
        self.clear = widgets.Button(description="clear", icon="trash", tooltip="empty the comparison")
        self.save_csv.on_click(lambda _button: self._save("csv", "text/csv", self.csv))
        self.save_picture.on_click(lambda _button: self._save("png", "image/png", self.png))
        self.clear.on_click(lambda _button: self._clear())
        self.buttons = widgets.HBox([self.save_csv, self.save_picture, self.clear])
        self.widget = widgets.VBox([self.table, self.buttons, self.message])
        self._draw()

    def add(self, entry: Entry) -> None:
        """Add an entry at the top of the table, with its picture reduced to THUMB pixels."""
        if not self.entries:  # a table keeps its name: saved again, it replaces its own file and no other
            self.stem = f"comparison-{datetime.now():%Y%m%d-%H%M%S}"
        small = entry.picture.copy()
        small.thumbnail((THUMB, THUMB))
        self.entries.append(replace(entry, picture=small))
        self.message.value = ""
        self._draw()

    def frame(self) -> pd.DataFrame:
        """Return one row per entry, oldest first: picture, captioner, decoding, caption, probability (0 to 1)."""
        return pd.DataFrame(
            [
                {"picture": entry.name, "captioner": entry.captioner, "decoding": entry.decoding,
                 "caption": entry.candidate.caption, "probability": round(entry.candidate.probability, 4)}
                for entry in self.entries
            ]
        )  # fmt: skip

    def csv(self) -> bytes:
        """Return the table as the content of a CSV file."""
        return self.frame().to_csv(index=False).encode()

    def png(self) -> bytes:
        """Return the figure as the content of a PNG file, at most TALLEST pixels high."""
        figure = self.figure()
        return png(figure, dpi=min(120, TALLEST // figure.get_figheight()))

    def figure(self) -> Figure:
        """Return one row per entry, oldest first: the picture, and beside it the caption and its origin."""
        row, width = 1.2, 9.0  # inches
        figure = Figure(figsize=(width, row * len(self.entries)))
        for place, entry in enumerate(self.entries):
            top = 1 - place / len(self.entries)
            share = 1 / len(self.entries)
            axis = figure.add_axes((0.01, top - 0.94 * share, 1.1 / width, 0.88 * share))
            axis.imshow(entry.picture)
            axis.set_axis_off()
            about = f"{entry.name} · {entry.captioner} · {entry.decoding} · {in_words(entry.candidate)}"
            below = 0.16  # of the row's height
            for text, size, color in ((entry.candidate.caption, 11, "black"), (about, 8, "#5f6672")):
                # Without parse_math=False, matplotlib would read the text between two dollar signs as mathematics.
                lines = textwrap.wrap(text, 1100 // (size + 3), max_lines=2, placeholder=" …")
                figure.text(0.145, top - below * share, "\n".join(lines), va="top", size=size, color=color,
                            parse_math=False)  # fmt: skip
                below += 0.07 + 0.16 * len(lines)
        return figure

    def _save(self, ending: str, kind: str, make: Callable[[], bytes]) -> None:
        """Save a file, and offer it as a download too, because the browser may run on another machine."""
        path, content = self.folder.resolve() / f"{self.stem}.{ending}", make()
        try:
            with atomic_path(path) as partial:
                partial.write_bytes(content)
            said = f"saved as {escape(str(path))}"
        except OSError as error:
            said = f"{escape(str(path))} cannot be written ({error.strerror}): use the link instead"
        link = data_url(content, kind)
        self.message.value = (
            f'<span role="status">{said} · <a download="{path.name}" href="{link}">download {path.name}</a></span>'
        )

    def _clear(self) -> None:
        self.entries.clear()
        self.message.value = ""
        self._draw()

    def _draw(self) -> None:
        for part in (self.buttons, self.message):
            part.layout.display = None if self.entries else "none"
        head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
        body = "".join(_line(entry) for entry in reversed(self.entries))
        self.table.value = (
            f'<table class="clipxgpt-table"><caption>comparison, newest first</caption><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table>"
            if self.entries
            else ""
        )


def _line(entry: Entry) -> str:
    thumb = f'<img alt="{escape(entry.name)}" src="{picture_url(entry.picture)}">'
    cells = (f"{thumb}<small>{escape(entry.name)}</small>", escape(entry.captioner), escape(entry.decoding),
             escape(entry.candidate.caption), as_bar(entry.candidate))  # fmt: skip
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _button(text: str, icon: str, folder: Path) -> widgets.Button:
    return widgets.Button(description=text, icon=icon, tooltip=f"{text}, into {folder.resolve()}",
                          layout={"width": "auto"})  # fmt: skip
