"""The explorer, a widget: choose a picture, and every captioner that is ticked writes its captions beside it."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets

from ..errors import UserError
from .captioners import Captioners, OwnCaptioners, SharedCaptioners, Written
from .comparison import Comparison, Entry
from .controls import DecodingControls
from .html import STYLE, as_bar, small_url
from .pictures import PictureChoice

if TYPE_CHECKING:
    from ..models.writer import CaptionWriter

SHOWN = 576  # pixels; the longest side of the picture in the widget, two for each CSS pixel
UNLIKE = "This picture is unlike those that the captioner was trained on: its captions may be nonsense."
LIKELY = (
    "The bars show the captioner's own probability of each caption (geometric mean over its tokens): sure does not "
    "mean right."
)


class Explorer:
    """A widget that captions pictures with one captioner or several. A notebook shows `explorer.widget`."""

    def __init__(
        self,
        captioners: "CaptionWriter | Mapping[str, CaptionWriter | str | Path] | SharedCaptioners",
        pictures: Mapping[str, Path],
    ):
        """captioners: one captioner, or {name: captioner or its folder}; a folder is loaded on its first use.

        pictures: {name: path}; the user can upload others. The first picture is captioned at once.
        """
        shared = isinstance(captioners, SharedCaptioners)
        self.captioners: Captioners = captioners if shared else OwnCaptioners(captioners)
        self.found: dict[str, Written] = {}  # by captioner, for the picture on the page
        self.ticks = {
            name: widgets.Checkbox(value=not place, description=name, indent=False, layout={"width": "auto"})
            for place, name in enumerate(self.captioners.names)
        }
        self.choice, self.controls = PictureChoice(pictures, self.caption), DecodingControls(self.caption)
        self.comparison = Comparison()
        self.figure, self.message = widgets.HTML(), widgets.HTML()
        self.results = widgets.VBox()
        for tick in self.ticks.values():
            tick.observe(lambda _change: self.caption(), names="value")

        ticks = widgets.HBox(list(self.ticks.values()), layout={"flex_flow": "row wrap", "grid_gap": "0 16px"})
        ticks.layout.display = None if len(self.ticks) > 1 else "none"
        beside = widgets.VBox([ticks, self.results, self.message], layout={"flex": "1 1 320px", "min_width": "0"})
        above = widgets.HBox([self.figure, beside], layout={"flex_flow": "row wrap", "grid_gap": "8px 24px"})
        style = widgets.HTML(STYLE)
        self.widget = widgets.VBox([style, self.choice.widget, above, self.controls.widget, self.comparison.widget])
        self.widget.add_class("clipxgpt")
        if pictures:
            self.choice.choose(next(iter(pictures)))
        else:
            self.caption()

    def caption(self) -> None:
        """Show the chosen picture, and let every ticked captioner write its captions; those of before go first."""
        self._clear()
        self._draw_picture()
        if self.choice.picture is None:
            self._say(self.choice.problem or "there is no picture yet: drop one on the field above")
            return
        ticked = [name for name, tick in self.ticks.items() if tick.value]
        if not ticked:
            self._say("no captioner is ticked")
            return
        self._say("writing …")
        groups, decoding = [], self.controls.decoding
        for name in ticked:
            lines = [widgets.HTML(f'<span class="clipxgpt-name">{escape(name)}</span>')] if len(self.ticks) > 1 else []
            try:
                self.found[name] = self.captioners.write(name, self.choice.picture, decoding)
                lines += self._lines(name, str(decoding))
            except UserError as error:
                lines.append(widgets.HTML(f'<span role="status">{escape(str(error))}</span>'))
            groups.append(widgets.VBox(lines))
        self.results.children = groups
        self._say(LIKELY if self.found else "")

    def _lines(self, name: str, decoding: str) -> list[widgets.Widget]:
        """Return a line per caption of the captioner `name`, each with a button that adds it to the comparison."""
        lines = []
        for number, caption in enumerate(self.found[name].captions, start=1):
            text = widgets.HTML(f'<div class="clipxgpt-caption"><b>{escape(caption.text)}</b>'
                                f"<span>{as_bar(caption.probability)}</span></div>",
                                layout={"flex": "1 1 auto", "min_width": "0"})  # fmt: skip
            button = widgets.Button(description="compare", icon="plus", layout={"flex": "0 0 100px"},
                                    tooltip=f"add caption {number} of {name} to the comparison")  # fmt: skip
            entry = Entry(self.choice.name, self.choice.picture, name, decoding, caption)
            button.on_click(lambda _button, entry=entry: self.comparison.add(entry))
            lines.append(widgets.HBox([text, button], layout={"align_items": "center"}))
        if self.found[name].unlike:
            lines.append(widgets.HTML(f'<span class="clipxgpt-unlike" role="status">{UNLIKE}</span>'))
        return lines

    def _clear(self) -> None:
        groups, self.results.children, self.found = self.results.children, (), {}
        for group in groups:
            _close(group)

    def _draw_picture(self) -> None:
        name, inside = self.choice.name, "no picture"
        if self.choice.picture is not None:
            url = small_url(self.choice.picture, SHOWN)
            inside = f'<img alt="the picture to caption, {escape(name)}" src="{url}">'
        self.figure.value = (
            f'<figure class="clipxgpt-figure"><div>{inside}</div><figcaption>{escape(name)}</figcaption></figure>'
        )

    def _say(self, text: str) -> None:
        self.message.value = f'<span class="clipxgpt-soft" role="status">{escape(text)}</span>'


def _close(widget: widgets.Widget) -> None:
    """Close a widget with all that it consists of, so that a kernel does not grow with each caption."""
    for part in (*getattr(widget, "children", ()), widget.layout, getattr(widget, "style", None)):
        if isinstance(part, widgets.DOMWidget):
            _close(part)
        elif part is not None:
            part.close()
    widget.close()
