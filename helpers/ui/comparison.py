"""The explorer's table of captions, to look at and to download as a CSV file or as a picture."""

import csv
import io
import textwrap
from dataclasses import dataclass, replace
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING

import ipywidgets as widgets
from PIL import Image

from .captioners import Caption
from .html import as_bar, data_url, in_words, small_url

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THUMB = 128  # pixels; the longest side of a picture in the table and in the downloaded picture
COLUMNS = ("picture", "captioner", "decoding", "caption", "how likely")
TALLEST = 60_000  # pixels; the height of the downloaded picture, since matplotlib draws less than 2^16
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet computes a cell that begins so


@dataclass(frozen=True)
class Entry:
    """A caption and its origin. name: of the picture. captioner: its name. decoding: in words."""

    name: str
    picture: Image.Image
    captioner: str
    decoding: str
    caption: Caption


class Comparison:
    """Entries, oldest first, and the widget that shows them and offers them as downloads.

    Texts are escaped, so none becomes HTML. Nothing is written to disk.
    """

    def __init__(self) -> None:
        self.entries = list[Entry]()
        self.stem = ""  # of the downloads' names, from the first entry on
        self.table, self.links = widgets.HTML(), widgets.HTML()
        self.links.add_class("clipxgpt-links")
        self.clear = widgets.Button(description="clear", icon="trash", tooltip="empty the comparison")
        self.clear.on_click(lambda _button: self._clear())
        self.buttons = widgets.HBox([self.links, self.clear], layout={"align_items": "center", "flex_flow": "row wrap"})
        self.widget = widgets.VBox([self.table, self.buttons])
        self.table.add_class("clipxgpt-wide")
        self._draw()

    def add(self, entry: Entry) -> None:
        """Add an entry at the top of the table, with its picture reduced to THUMB pixels."""
        if not self.entries:
            self.stem = f"comparison-{datetime.now():%Y%m%d-%H%M%S}"
        small = entry.picture.copy()
        small.thumbnail((THUMB, THUMB))
        self.entries.append(replace(entry, picture=small))
        self._draw()

    def csv(self) -> bytes:
        """Return the content of a CSV file, one row per entry, oldest first; no text is a spreadsheet's formula."""
        file = io.StringIO()
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["picture", "captioner", "decoding", "caption", "probability"])
        for entry in self.entries:
            texts = (entry.name, entry.captioner, entry.decoding, entry.caption.text)
            texts = [f"'{text}" if text.startswith(FORMULA) else text for text in texts]
            rows.writerow([*texts, round(entry.caption.probability, 4)])
        return file.getvalue().encode()

    def png(self) -> bytes:
        """Return the figure as the content of a PNG file, at most TALLEST pixels high."""
        from ..plots.base import png

        figure = self.figure()
        return png(figure, dpi=min(120, TALLEST // figure.get_figheight()))

    def figure(self) -> "Figure":
        """Return one row per entry, oldest first: the picture, and beside it the caption and its origin."""
        from matplotlib.figure import Figure

        row, width = 1.2, 9.0  # inches
        figure = Figure(figsize=(width, row * len(self.entries)))
        for place, entry in enumerate(self.entries):
            top = 1 - place / len(self.entries)
            share = 1 / len(self.entries)
            axis = figure.add_axes((0.01, top - 0.94 * share, 1.1 / width, 0.88 * share))
            axis.imshow(entry.picture)
            axis.set_axis_off()
            likely = in_words(entry.caption.probability)
            about = f"{entry.name} · {entry.captioner} · {entry.decoding} · {likely}"
            below = 0.16  # of the row's height
            for text, size, color in ((entry.caption.text, 11, "black"), (about, 8, "#5f6672")):
                # Without parse_math=False, matplotlib would read the text between two dollar signs as mathematics.
                lines = textwrap.wrap(text, 1100 // (size + 3), max_lines=2, placeholder=" …")
                figure.text(0.145, top - below * share, "\n".join(lines), va="top", size=size, color=color,
                            parse_math=False)  # fmt: skip
                below += 0.07 + 0.16 * len(lines)
        return figure

    def _clear(self) -> None:
        self.entries.clear()
        self._draw()

    def _draw(self) -> None:
        self.buttons.layout.display = None if self.entries else "none"
        if not self.entries:
            self.table.value = self.links.value = ""
            return
        files = (("save as CSV", "csv", data_url(self.csv(), "text/csv")),
                 ("save as picture", "png", data_url(self.png(), "image/png")))  # fmt: skip
        self.links.value = "".join(
            f'<a download="{self.stem}.{ending}" href="{url}">{text}</a>' for text, ending, url in files
        )
        head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
        body = "".join(_line(entry) for entry in reversed(self.entries))
        self.table.value = (
            f'<table class="clipxgpt-table"><caption>comparison, newest first</caption><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table>"
        )


def _line(entry: Entry) -> str:
    thumb = f'<img alt="{escape(entry.name)}" src="{small_url(entry.picture, THUMB)}">'
    cells = (f"{thumb}<small>{escape(entry.name)}</small>", escape(entry.captioner), escape(entry.decoding),
             escape(entry.caption.text), as_bar(entry.caption.probability))  # fmt: skip
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
