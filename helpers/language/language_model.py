"""The language model, any decoder-only one of transformers, behind one interface; the notebooks' GPT-2 is one of them.

Its modules are found by structure, so nothing above this room names those of one family. A model for which the
captioner would need a second path is refused in one line, before its weights are fetched.
"""

import inspect
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)

from ..errors import UserError
from ..runtime.device import attention_on

READS = ("inputs_embeds", "position_ids", "attention_mask", "past_key_values")  # arguments of a forward pass
ATTENTION = {"full_attention", "sliding_attention"}  # kinds of layers that a mask expresses
RESCALES = ("final_logit_softcapping", "logit_scale", "logits_scaling")  # settings that change scores afterwards
TOLERANCE = 1e-3  # of the largest score
INSTEAD = "name another decoder-only one, such as gpt2 or HuggingFaceTB/SmolLM2-135M"


def language_model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Return the class of the language model. Raises UserError if the captioner would need a second path for it."""
    if obstacle := _obstacle(config):
        raise UserError(f"{_named(config)}, which no captioner can take, because {obstacle}; {INSTEAD}")
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]


def _obstacle(config: PreTrainedConfig) -> str | None:
    """Return in words why the captioner would need a second path for models of this config; None if it does not."""
    kind, settings = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None), config.to_dict()
    if config.is_encoder_decoder or type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        return "it has an encoder, and a caption must be written by a decoder alone"
    if config.sub_configs:
        return "it is several models in one, of which the text decoder alone can be taken"
    if kind is None:
        return "transformers has no text decoder of that type"
    if not {*READS} <= inspect.signature(kind.forward).parameters.keys():
        return f"its forward pass does not take each of {', '.join(READS)}"
    if not hasattr(config, "max_position_embeddings"):
        return "its config names no longest text"
    if getattr(kind, "_is_stateful", False) or {*(settings.get("layer_types") or ())} - ATTENTION:
        return "not all of its layers are attention, to which a mask shows one caption of a row"
    if any("expert" in name and value for name, value in settings.items()):
        return "it chooses experts for each token, which asks for a second loss"
    if changed := next((name for name in RESCALES if settings.get(name) not in (None, 1)), None):
        return f"its {changed} changes the scores behind the output layer"
    return None


def _named(config: PreTrainedConfig) -> str:
    return f"the language model {config.name_or_path or 'of this captioner'} is of type {config.model_type}"


def longest_text(config: PreTrainedConfig) -> int:
    """Return the places that a text may have: those with positions, within reach of a sliding window if it has one."""
    window = getattr(config, "sliding_window", None)
    return min(config.max_position_embeddings, window or config.max_position_embeddings)


class Parts(NamedTuple):
    """The modules of a language model, by the names that they have in the stack of its blocks."""

    stack: nn.Module
    embeddings: dict[str, nn.Module]  # of tokens, and of positions if they are learned
    blocks: dict[str, nn.Module]
    norms: dict[str, nn.Module]  # the final norm, and whatever else the stack has
    output: dict[str, nn.Module]  # the output layer, if its weights are not those of the token embeddings

    @property
    def all(self) -> dict[str, nn.Module]:
        return self.embeddings | self.blocks | self.norms | self.output


def find_parts(model: PreTrainedModel) -> Parts:
    """Return the parts of a language model. Raises UserError if its blocks are not in one list."""
    lists = [
        (name, module) for name, module in model.base_model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers
    ]  # fmt: skip
    if len(lists) != 1:
        raise UserError(f"{_named(model.config)}, which has its blocks in {len(lists)} lists, not one; {INSTEAD}")
    path, blocks = lists[0]
    place, _, name = path.rpartition(".")
    stack, output = model.base_model.get_submodule(place), model.get_output_embeddings()
    others = {key: each for key, each in stack.named_children() if each is not blocks and list(each.parameters())}
    tied = output.weight is model.get_input_embeddings().weight
    return Parts(
        stack=stack,
        embeddings={key: each for key, each in others.items() if isinstance(each, nn.Embedding)},
        blocks={f"{name}.{number}": block for number, block in enumerate(blocks)},
        norms={key: each for key, each in others.items() if not isinstance(each, nn.Embedding)},
        output={} if tied else {key: each for key, each in model.named_children() if each is output},
    )


def read_rows(
    model: PreTrainedModel, inputs: torch.Tensor, *, positions: torch.Tensor, text_of: torch.Tensor
) -> torch.Tensor:
    """Return the last hidden states [R, L, E] of rows of texts, in which each place sees its own text so far.

    inputs: the input embeddings, [R, L, E]. positions: int64 [R, L], within the text. text_of: int64 [R, L], the text
    that a place belongs to.
    """
    mask = (text_of.unsqueeze(2) == text_of.unsqueeze(1)).tril().unsqueeze(1)  # bool [R, 1, L, L]
    if model.config._attn_implementation != "sdpa":  # others add the mask to the scores
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, torch.finfo(torch.float32).min)
    with attention_on(inputs.device):
        output = model.base_model(inputs_embeds=inputs, position_ids=positions, attention_mask=mask, use_cache=False)
    return output.last_hidden_state


@torch.no_grad()
def check_reading(model: PreTrainedModel) -> None:
    """Raise UserError if a model reads two texts in one row otherwise than it reads each alone."""
    texts = torch.arange(6).view(2, 3) % model.config.vocab_size
    alone = model(texts, use_cache=False).logits  # [2, 3, V]
    row = model.get_input_embeddings()(texts).flatten(0, 1).unsqueeze(0)  # [1, 6, E]
    places = torch.arange(6).unsqueeze(0)
    hidden = read_rows(model, row, positions=places % 3, text_of=places // 3)
    together = F.linear(hidden, model.get_output_embeddings().weight).view_as(alone)
    if (together - alone).abs().max() > TOLERANCE * alone.abs().max():
        raise UserError(
            f"{_named(model.config)}, whose scores for texts in one row are others than for each text alone, but "
            f"captions are learned in rows; {INSTEAD}"
        )
