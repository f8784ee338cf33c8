"""The decoding's controls, folded under a line that says which decoding they describe."""

from collections.abc import Callable

import ipywidgets as widgets

from ..models.decoding import LONGEST_BY_DEFAULT, Decoding

MOST_TOKENS = 100  # the slider's end; a captioner with a shorter context stops at its own
WIDE = {"style": {"description_width": "110px"}, "layout": {"width": "min(460px, calc(100% - 6px))"}}


class DecodingControls:
    """A widget to choose a decoding with."""

    def __init__(self, on_change: Callable[[], None]):
        """on_change: called after every change."""
        calm = {**WIDE, "continuous_update": False}  # a slider reports where it is let go
        self.method = widgets.ToggleButtons(
            options=["greedy", "beam search", "sampling"],
            tooltips=["the likeliest token each time", "the likeliest of several whole captions", "tokens at random"],
            style={"button_width": "118px"},
        )  # fmt: skip
        self.beams = widgets.IntSlider(5, 2, 10, description="beams", **calm)
        self.temperature = widgets.FloatSlider(1.0, min=0.1, max=2.0, step=0.1, description="temperature", **calm)
        self.top_p = widgets.FloatSlider(0.9, min=0.05, max=1.0, step=0.05, description="top p", **calm)
        self.seed = widgets.BoundedIntText(0, min=0, max=10**6, description="seed", **WIDE)
        self.guidance = widgets.FloatSlider(1.0, min=1.0, max=4.0, step=0.25, description="guidance", **calm)
        self.length = widgets.IntSlider(LONGEST_BY_DEFAULT, 1, MOST_TOKENS, description="most tokens", **calm)
        self._knobs = {"beam search": [self.beams], "sampling": [self.temperature, self.top_p, self.seed]}
        each = [self.beams, self.temperature, self.top_p, self.seed, self.guidance, self.length]
        self.widget = widgets.Accordion(children=[widgets.VBox([self.method, *each])])
        self.widget.add_class("clipxgpt-decoding")
        self._on_change = on_change
        for knob in (self.method, *each):
            knob.observe(lambda _change: self._changed(), names="value")
        self._show()

    @property
    def decoding(self) -> Decoding:
        """The decoding that the controls describe."""
        length = None if self.length.value == LONGEST_BY_DEFAULT else self.length.value
        choices = {"max_tokens": length, "guidance": self.guidance.value}
        if self.method.value == "beam search":
            choices["beams"] = self.beams.value
        if self.method.value == "sampling":
            choices |= {"temperature": self.temperature.value, "top_p": self.top_p.value, "seed": self.seed.value}
        return Decoding(**choices)

    def _changed(self) -> None:
        self._show()
        self._on_change()

    def _show(self) -> None:
        for method, knobs in self._knobs.items():
            for knob in knobs:
                knob.layout.display = None if method == self.method.value else "none"
        self.widget.titles = (f"decoding: {self.decoding}",)
