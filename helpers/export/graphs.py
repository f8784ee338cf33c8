"""A captioner as two ONNX graphs, by PyTorch's exporter.

    picture:   pixels [B, 3, H, W] -> prefix [B, P, E], strangeness [B]
    language:  vectors [R, P, E], tokens [R, T], past_key0, past_value0, ... [R, heads, L, width]
               -> scores [R, V] of the next token, key0, value0, ... [R, heads, L+P+T, width]

The first step of a caption has the prefix as vectors and no tokens, later ones have no vectors and one token. A search
keeps one row per beam.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from ..encoders.vision import image_features
from ..errors import UserError
from ..models.captioner import Captioner
from ..runtime.texts import first_line

OPSET = 21  # the first whose DequantizeLinear takes blocks


class PictureGraph(nn.Module):
    """Encoder, standardisation and mapping module; and the strangeness, if the captioner knows its training."""

    def __init__(self, captioner: Captioner):
        super().__init__()
        self.captioner = captioner
        familiarity = captioner.familiarity
        self.familiarity = familiarity if familiarity and familiarity.limit > 0 else None

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        captioner = self.captioner
        embeddings = image_features(captioner.clip, pixels, captioner.config.pooling)
        prefix = captioner.prefix(embeddings)
        if self.familiarity is None:
            return (prefix,)
        return prefix, self.familiarity.strangeness(captioner.vectors(embeddings))


class LanguageGraph(nn.Module):
    """One step of a language model: any whose cache holds keys and values of all that came before."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, vectors: torch.Tensor, tokens: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = torch.cat([vectors, self.model.get_input_embeddings()(tokens)], dim=1)  # [R, P+T, E]
        rows, new, seen = inputs.shape[0], inputs.shape[1], past[0].shape[2]
        places = torch.arange(seen, seen + new, device=inputs.device)
        causal = torch.arange(seen + new, device=inputs.device) <= places[:, None]  # [P+T, L+P+T]
        output = self.model(
            inputs_embeds=inputs, position_ids=places.expand(rows, -1), attention_mask=causal.expand(rows, 1, -1, -1),
            past_key_values=DynamicCache(list(zip(past[::2], past[1::2], strict=True))), use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        layers = output.past_key_values.layers
        return output.logits[:, -1], *(half for layer in layers for half in (layer.keys, layer.values))


def export_picture(captioner: Captioner, pixels: torch.Tensor, file: Path) -> None:
    """Write the picture graph. pixels: those of two pictures, [2, 3, H, W]. Raises UserError if it cannot be one."""
    graph = PictureGraph(captioner)
    outputs = ["prefix", "strangeness"][: 1 + (graph.familiarity is not None)]
    _export(graph, (pixels,), file, shapes=({0: "pictures"},), inputs=["pixels"], outputs=outputs)
    _fold_constants(file)


@torch.no_grad()
def export_language(model: PreTrainedModel, file: Path) -> dict[str, int]:
    """Write the language graph; return the shape of its cache. Raises UserError if it cannot be one."""
    width = model.get_input_embeddings().weight.shape[1]
    vectors = torch.randn(2, 3, width)
    layers = model(inputs_embeds=vectors, use_cache=True).past_key_values.layers
    past = [half for layer in layers for half in (layer.keys, layer.values)]
    names = [f"{half}{number}" for number in range(len(layers)) for half in ("key", "value")]
    _export(
        LanguageGraph(model), (vectors, torch.zeros(2, 4, dtype=torch.long), *past), file,
        shapes=({0: "rows", 1: "vectors"}, {0: "rows", 1: "tokens"}, tuple({0: "rows", 2: "seen"} for _ in past)),
        inputs=["vectors", "tokens", *(f"past_{name}" for name in names)], outputs=["scores", *names],
    )  # fmt: skip
    return {"layers": len(layers), "heads": past[0].shape[1], "head_width": past[0].shape[3], "width": width}


def _export(
    graph: nn.Module, example: tuple[torch.Tensor, ...], file: Path, *, shapes: Any, inputs: list[str],
    outputs: list[str],
) -> None:  # fmt: skip
    try:
        with _silence():
            torch.onnx.export(
                graph.eval(), example, file, dynamo=True, dynamic_shapes=shapes, input_names=inputs,
                output_names=outputs, external_data=False, opset_version=OPSET, verbose=False,
            )  # fmt: skip
    except OSError:  # a full disk
        raise
    except Exception as error:  # the exporter raises whatever went wrong below it
        raise UserError(
            f"{file.name} cannot be made of this captioner ({first_line(error)}): keep to PyTorch for it"
        ) from error


def _fold_constants(file: Path) -> None:
    """Compute once what depends on weights alone: batch norm becomes part of its convolution."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3  # errors
    folded = file.with_suffix(".folded")
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    folded.replace(file)


@contextmanager
def _silence() -> Iterator[None]:
    """Silence the exporter's remarks about packages that are not needed here."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
