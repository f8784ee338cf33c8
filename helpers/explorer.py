"""A widget to play with: pick or upload a picture, choose how to decode, compare captions."""

import io
from collections.abc import Mapping
from html import escape
from pathlib import Path

import ipywidgets as widgets
from PIL import Image

from .errors import UserError
from .pictures import open_picture
from .writer import CaptionWriter, Decoding

SHOWN = 256  # pixels; the longest side of the picture in the widget


class Explorer:
    """The explorer over a captioner and some pictures by name. `explorer.widget` is what a notebook shows."""

    def __init__(self, writer: CaptionWriter, pictures: Mapping[str, Path]):
        self.writer, self.pictures = writer, dict(pictures)
        self.rows: list[tuple[str, str, str]] = []  # (picture, decoding, caption), newest last

        self.choice = widgets.Dropdown(options=list(self.pictures), description="picture")
        self.upload = widgets.FileUpload(accept="image/*", multiple=False, description="upload")
        self.method = widgets.ToggleButtons(options=["greedy", "beam search", "sampling"], description="decoding")
        self.beams = widgets.IntSlider(5, 2, 10, description="beams")
        self.temperature = widgets.FloatSlider(1.0, min=0.1, max=2.0, step=0.1, description="temperature")
        self.top_p = widgets.FloatSlider(0.9, min=0.05, max=1.0, step=0.05, description="top p")
        self.seed = widgets.BoundedIntText(0, min=0, max=10**6, description="seed")
        self.button = widgets.Button(description="caption", button_style="primary", icon="pencil")
        self.clear = widgets.Button(description="clear", icon="trash")
        self.picture = widgets.Image(format="png", layout={"width": f"{SHOWN}px", "object_fit": "contain"})
        self.message = widgets.HTML()
        self.table = widgets.HTML()

        self.choice.observe(lambda _change: self._show_chosen(), names="value")
        self.upload.observe(lambda _change: self._show_uploaded(), names="value")
        self.method.observe(lambda _change: self._show_knobs(), names="value")
        self.button.on_click(lambda _button: self.caption())
        self.clear.on_click(lambda _button: self._clear())
        knobs = [self.choice, self.upload, self.method, self.beams, self.temperature, self.top_p, self.seed]
        controls = widgets.VBox([*knobs, widgets.HBox([self.button, self.clear]), self.message])
        self.widget = widgets.VBox([widgets.HBox([self.picture, controls]), self.table])
        self._show_knobs()
        self._show_chosen()

    @property
    def decoding(self) -> Decoding:
        """What the controls say."""
        if self.method.value == "beam search":
            return Decoding(beams=self.beams.value)
        if self.method.value == "sampling":
            return Decoding(temperature=self.temperature.value, top_p=self.top_p.value, seed=self.seed.value)
        return Decoding()

    def caption(self) -> None:
        """Caption the picture that is shown, and add the caption to the table."""
        if self._shown is None:
            self._say("there is no picture to caption: pick or upload one")
            return
        name, picture = self._shown
        (caption,) = self.writer.write(self.writer.embed([picture]), self.decoding)
        self.rows.append((name, self._words(), caption))
        self._say("")
        self._draw_table()

    def _show_chosen(self) -> None:
        if self.choice.value is not None:
            self._show(self.choice.value, self.pictures[self.choice.value])
        else:
            self._shown = None

    def _show_uploaded(self) -> None:
        if self.upload.value:
            file = self.upload.value[0]
            self.choice.value = None  # so that whichever picture is picked next is a change
            self._show(file["name"], file["name"], bytes(file["content"]))

    def _show(self, name: str, path: str | Path, content: bytes | None = None) -> None:
        try:
            picture = open_picture(path, content)
        except UserError as error:
            self._shown = None
            self.picture.value = b""
            self._say(str(error))
            return
        self._shown = (name, picture)
        # Small pictures are enlarged without smoothing, so that they stay what the captioner sees.
        scale = SHOWN / max(picture.size)
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        buffer = io.BytesIO()
        picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS).save(buffer, "png")
        self.picture.value = buffer.getvalue()
        self._say("")

    def _show_knobs(self) -> None:
        shown = {"beam search": [self.beams], "sampling": [self.temperature, self.top_p, self.seed]}
        for knob in (self.beams, self.temperature, self.top_p, self.seed):
            knob.layout.display = None if knob in shown.get(self.method.value, []) else "none"

    def _words(self) -> str:
        if self.method.value == "beam search":
            return f"{self.beams.value} beams"
        if self.method.value == "sampling":
            return f"T {self.temperature.value:.1f}, top p {self.top_p.value:.2f}, seed {self.seed.value}"
        return "greedy"

    def _clear(self) -> None:
        self.rows.clear()
        self._draw_table()

    def _say(self, text: str) -> None:
        self.message.value = f"<i>{escape(text)}</i>"

    def _draw_table(self) -> None:
        """The comparison, newest first. File names and captions are text, whatever they contain."""
        cells = ["<tr>" + "".join(f"<td style='padding: 2px 12px'>{escape(cell)}</td>" for cell in row) + "</tr>"
                 for row in reversed(self.rows)]  # fmt: skip
        self.table.value = f"<table>{''.join(cells)}</table>" if cells else ""
