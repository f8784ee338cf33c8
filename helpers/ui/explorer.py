"""The explorer, a widget: pick or upload a picture, choose a captioner and a decoding, compare captions."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

import ipywidgets as widgets
from PIL import Image

from ..data.images import open_picture
from ..errors import UserError
from ..models.decoding import Decoding
from ..models.writer import Candidate, CaptionWriter
from ..runtime.device import choose_accelerator
from .comparison import Comparison, Entry
from .html import STYLE, as_bar, picture_url

SHOWN = 288  # pixels; the longest side of the picture in the widget
LONGEST = 40  # tokens; the slider's first position, at which the decoding keeps its own limit
UNLIKE = "this picture is unlike those that the captioner was trained on: its captions may be nonsense"


class Explorer:
    """A widget that captions pictures with one captioner or several. A notebook shows `explorer.widget`."""

    def __init__(
        self,
        captioners: CaptionWriter | Mapping[str, CaptionWriter | str | Path],
        pictures: Mapping[str, Path],
        *,
        folder: str | Path = ".",
    ):
        """captioners: one captioner, or {name: captioner or its folder}; a folder is loaded on its first use.

        pictures: {name: path}; the user can upload others. folder: for saved comparisons.
        """
        one = isinstance(captioners, CaptionWriter)
        self.captioners = {"captioner": captioners} if one else dict(captioners)
        self.pictures, self.comparison = dict(pictures), Comparison(folder)
        self.found: list[Candidate] = []  # the captions found last
        self._shown: tuple[str, Image.Image] | None = None  # name and picture on the page

        wide = {"style": {"description_width": "96px"}, "layout": {"width": "min(480px, 100%)"}}
        names = list(self.captioners)
        self.captioner = widgets.Dropdown(options=names, value=next(iter(names), None), description="captioner", **wide)
        self.choice = widgets.Dropdown(options=list(self.pictures), description="picture", **wide)
        self.upload = widgets.FileUpload(
            accept="image/*", multiple=False, description="upload a picture", layout={"width": "auto"},
            tooltip="servers accept 10 MB at most, unless set to accept more, as make lab and make app do",
        )  # fmt: skip
        self.method = widgets.ToggleButtons(
            options=["greedy", "beam search", "sampling"], description="decoding",
            tooltips=["the likeliest token each time", "the likeliest of several whole captions", "tokens at random"],
            style={"description_width": "96px", "button_width": "118px"}, layout=wide["layout"],
        )  # fmt: skip
        self.beams = widgets.IntSlider(5, 2, 10, description="beams", **wide)
        self.temperature = widgets.FloatSlider(1.0, min=0.1, max=2.0, step=0.1, description="temperature", **wide)
        self.top_p = widgets.FloatSlider(0.9, min=0.05, max=1.0, step=0.05, description="top p", **wide)
        self.seed = widgets.BoundedIntText(0, min=0, max=10**6, description="seed", **wide)
        self.guidance = widgets.FloatSlider(1.0, min=1.0, max=4.0, step=0.25, description="guidance", **wide)
        self.length = widgets.IntSlider(LONGEST, 1, 100, description="most tokens", **wide)
        self.button = widgets.Button(description="caption it", button_style="primary", icon="pencil")
        self.picture, self.message, self.heading = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.results = widgets.VBox()

        self.choice.observe(lambda _change: self._show_chosen(), names="value")
        self.upload.observe(lambda _change: self._show_uploaded(), names="value")
        self.method.observe(lambda _change: self._show_knobs(), names="value")
        self.captioner.observe(lambda _change: self._fit_length(), names="value")
        self.button.on_click(lambda _button: self.caption())
        knobs = [self.captioner, self.choice, self.method, self.beams, self.temperature, self.top_p, self.seed,
                 self.guidance, self.length]  # fmt: skip
        buttons = widgets.HBox([self.button, self.upload])
        controls = widgets.VBox([*knobs, buttons, self.message], layout={"flex": "1 1 320px"})
        above = widgets.HBox([self.picture, controls], layout={"flex_flow": "row wrap", "grid_gap": "8px 24px"})
        self.widget = widgets.VBox([widgets.HTML(STYLE), above, self.heading, self.results, self.comparison.widget])
        self.widget.add_class("clipxgpt")
        self.captioner.layout.display = "none" if one else None
        self.choice.layout.display = None if self.pictures else "none"
        self._show_knobs()
        self._fit_length()
        self._show_chosen()

    @property
    def decoding(self) -> Decoding:
        """The decoding that the controls describe."""
        choices = {"beams": self.beams} if self.method.value == "beam search" else {}
        if self.method.value == "sampling":
            choices = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        length = None if self.length.value == LONGEST else self.length.value
        return Decoding(
            max_tokens=length, guidance=self.guidance.value, **{name: knob.value for name, knob in choices.items()}
        )

    def caption(self) -> None:
        """Caption the picture on the page and list every caption that the decoding finds."""
        if self._shown is None:
            self._say("there is no picture to caption: pick or upload one")
            return
        self.button.disabled = True
        try:
            writer = self._writer()
            self._say("writing …")
            name, picture = self._shown
            embeddings = writer.embed([picture])
            self.found = writer.candidates(embeddings, self.decoding)
            self._list(name, picture)
            self._say(UNLIKE if writer.unlike_training(embeddings)[0] else "")
        except UserError as error:
            self._say(str(error))
        finally:
            self.button.disabled = False

    def _writer(self) -> CaptionWriter:
        """Return the chosen captioner; load it on its first use."""
        name = self.captioner.value
        if not isinstance(self.captioners[name], CaptionWriter):
            self._say(f"loading {name} …")
            self.captioners[name] = CaptionWriter.load(self.captioners[name], device=choose_accelerator("fp32").device)
            self._fit_length()
        return self.captioners[name]

    def _fit_length(self) -> None:
        """Limit the slider to what fits into the chosen captioner's context, once that captioner is loaded."""
        writer = self.captioners.get(self.captioner.value)
        if isinstance(writer, CaptionWriter):
            self.length.max = min(100, writer.captioner.longest_caption)

    def _list(self, name: str, picture: Image.Image) -> None:
        """List the captions found, each with a button that adds it to the comparison."""
        for line in self.results.children:
            for widget in (*line.children, line):
                widget.close()
        lines, words = [], str(self.decoding)
        for number, candidate in enumerate(self.found, start=1):
            text = widgets.HTML(f'<div class="clipxgpt-caption"><b>{escape(candidate.caption)}</b>'
                                f"<span>{as_bar(candidate)}</span></div>", layout={"flex": "1 1 auto"})  # fmt: skip
            button = widgets.Button(description="compare", icon="plus", layout={"flex": "0 0 100px"},
                                    tooltip=f"add caption {number} to the comparison")  # fmt: skip
            entry = Entry(name, picture, self.captioner.value, words, candidate)
            button.on_click(lambda _button, entry=entry: self.comparison.add(entry))
            lines.append(widgets.HBox([button, text], layout={"align_items": "center"}))
        self.results.children = lines
        self.heading.value = (
            f"<small>{escape(name)} · {escape(self.captioner.value)} · {words} · the captioner's own probability "
            "of each caption (geometric mean over its tokens): sure does not mean right</small>"
        )

    def _show_chosen(self) -> None:
        if self.choice.value is not None:
            self._show(self.choice.value, self.pictures[self.choice.value])
        elif not self.upload.value:
            self._draw_picture(None)

    def _show_uploaded(self) -> None:
        if self.upload.value:
            file = self.upload.value[0]
            self.choice.value = None  # so that picking any picture is a change, the one picked before too
            self._show(file["name"], Path(file["name"]), bytes(file["content"]))
            self.upload.value = ()  # so that the same file can be uploaded again

    def _show(self, name: str, path: Path, content: bytes | None = None) -> None:
        """Show a picture under this name, or say why it cannot be read. content: the file's bytes, if at hand."""
        try:
            self._draw_picture((name, open_picture(path, content)))
            self._say("")
        except UserError as error:
            self._draw_picture(None)
            self._say(str(error))

    def _draw_picture(self, shown: tuple[str, Image.Image] | None) -> None:
        """Show a picture and its name, or that there is no picture."""
        self._shown, inside, below = shown, "no picture", ""
        if shown:
            name, picture = shown
            # A small picture is enlarged without smoothing, so that one sees the captioner's own pixels.
            scale = SHOWN / max(picture.size)
            size = tuple(max(1, round(side * scale)) for side in picture.size)
            picture = picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
            inside = f'<img alt="the picture to caption, {escape(name)}" src="{picture_url(picture)}">'
            below = escape(name)
        self.picture.value = (
            f'<figure class="clipxgpt-figure"><div>{inside}</div><figcaption>{below}</figcaption></figure>'
        )

    def _show_knobs(self) -> None:
        shown = {"beam search": [self.beams], "sampling": [self.temperature, self.top_p, self.seed]}
        for knob in (self.beams, self.temperature, self.top_p, self.seed):
            knob.layout.display = None if knob in shown.get(self.method.value, []) else "none"

    def _say(self, text: str) -> None:
        self.message.value = f'<span role="status">{escape(text)}</span>'
