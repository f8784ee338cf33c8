"""The diagrams say what the model does: which places look where, which tensors train."""

import numpy as np
import torch
from matplotlib.patches import FancyBboxPatch
from PIL import Image
from transformers import GPT2Config, GPT2LMHeadModel

from helpers.config import Config
from helpers.models.mapping import MAPPERS
from helpers.plots.architecture import DARK, plot_architecture
from helpers.plots.diagrams import EMPTY, MAPPER_STEPS, plot_mappers, plot_prefix_and_words, plot_tensor_strip


def colors(axis) -> list[str]:
    from matplotlib.colors import to_hex

    return [to_hex(patch.get_facecolor()) for patch in axis.patches]


def texts(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def test_no_place_looks_at_a_later_one_and_each_predicts_the_next():
    (axis,) = plot_prefix_and_words(["a", "$dog$"], 3).axes
    filled = np.array([color != EMPTY for color in colors(axis)]).reshape(5, 5)
    assert np.array_equal(filled, np.tril(np.ones((5, 5), dtype=bool)))
    assert texts(axis)[:5] == ["no target", "no target", "→ a", "→ $dog$", "→ end of text"]


def test_the_strip_counts_what_trains():
    with torch.device("meta"):
        gpt2 = GPT2LMHeadModel(GPT2Config())
    ends = ("transformer.wte", "transformer.wpe", "transformer.h.0.", "transformer.h.11.", "transformer.ln_f")
    figure = plot_tensor_strip([(name, w.numel(), name.startswith(ends)) for name, w in gpt2.named_parameters()])
    (axis,), (legend,) = figure.axes, figure.legends
    assert len(axis.patches) == 2 * 148
    assert [text.get_text() for text in legend.get_texts()] == [
        "train: 28 tensors, 53,561,088 parameters",
        "frozen: 120 tensors, 70,878,720 parameters",
    ]


def test_every_mapping_module_has_its_drawing():
    assert MAPPER_STEPS.keys() <= MAPPERS.keys()
    figure = plot_mappers(layers=Config().mapper_layers)
    assert [axis.get_title() for axis in figure.axes] == list(MAPPER_STEPS)
    for axis in figure.axes:
        steps = [text for text in texts(axis) if text]  # arrows have an empty text
        assert (steps[0], steps[-1]) == ("[B, D]", "[B, P, E]")
    assert sum("6 encoder layers" in text for axis in figure.axes for text in texts(axis)) == 2


def test_the_architecture_shows_the_caption():
    figure = plot_architecture(Image.new("RGB", (8, 8)), "a very long caption indeed", DARK)
    (axis,) = figure.axes
    assert sum(isinstance(patch, FancyBboxPatch) for patch in axis.patches) > 8
    assert "“a very long\ncaption indeed”" in texts(axis)
    assert [text for text in texts(axis) if text in ("a", "very", "…", "<end>")] == ["a", "very", "…", "<end>"] * 2
