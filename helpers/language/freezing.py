"""The choice of the language model's tensors that train, by policy; low-rank adapters; the table of what they cost."""

from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import UserError
from .language_model import Parts, find_parts

if TYPE_CHECKING:
    import pandas as pd

LORA_SCALE = 2  # alpha / rank, the usual ratio: a larger rank can express more, at the same strength


class FreezingConfig(Protocol):
    """The fields of a config that say what trains; `Config` has them."""

    freezing: str  # "frozen", "first-and-last", "last-n", "lora" or "full"
    last_n: int  # blocks that train under "last-n"
    lora_rank: int  # rank of the adapters under "lora"
    train_embeddings: bool  # whether wte and wpe train, too, under "first-and-last", "last-n" and "lora"


def trained_modules(config: FreezingConfig, parts: Parts) -> dict[str, nn.Module]:
    """Return the modules that train under the config's policy, by name; under `lora` those of the adapters there are.

    `first-and-last` is the original's: its "first and last 14 layers" are 14 *tensors* at either end of
    `list(gpt2.parameters())`, that is wte, wpe and the first block, then the last block and the final norm. `last-n`
    trains the last `last_n` blocks and the final norm. `lora` trains adapters beside frozen weights (LoRA, Hu et al.
    2021). In GPT-2 wte is also the output layer, because its weights are tied; an output layer of its own goes with
    the embeddings. Raises UserError on an unknown policy or on more blocks than there are.
    """
    blocks = list(parts.blocks.items())
    if config.freezing == "frozen":
        return {}
    if config.freezing == "full":
        return parts.all
    if config.freezing == "first-and-last":
        trained = dict([blocks[0], *blocks[1:][-1:]]) | parts.norms
    elif config.freezing == "last-n":
        if not 1 <= config.last_n <= len(blocks):
            raise UserError(
                f"last_n is {config.last_n}, but this language model has {len(blocks)} blocks: choose 1 to "
                f"{len(blocks)}"
            )
        trained = dict(blocks[-config.last_n :]) | parts.norms
    elif config.freezing == "lora":
        trained = {f"{block}.{name}": module for block, inside in blocks for name, module in inside.named_modules()
                   if name.endswith((".lora_A", ".lora_B"))}  # fmt: skip
    else:
        raise UserError(
            f"freezing is {config.freezing!r}, but must be one of frozen, first-and-last, last-n, lora, full"
        )
    return (parts.embeddings | parts.output if config.train_embeddings else {}) | trained


def freeze(gpt2: PreTrainedModel, config: FreezingConfig) -> None:
    """Let the tensors of `trained_modules` train and freeze all others, in place.

    gpt2: the language model, which gets its adapters under `lora`. Raises UserError if it cannot have them, or has
    them already.
    """
    if any(map(_has_adapter, gpt2.modules())):
        raise UserError("this language model has LoRA adapters already: load it again to freeze it in another way")
    parts = find_parts(gpt2)
    if config.freezing == "lora":
        _add_adapters(parts, config.lora_rank, width=gpt2.config.hidden_size)
    gpt2.requires_grad_(False)
    for module in trained_modules(config, parts).values():
        module.requires_grad_(True)


def rest_frozen(model: nn.Module) -> None:
    """Put every module of `model` whose parameters are all frozen into `eval()`, which turns its dropout off."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def merged_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of `model` under their names without adapters, with the adapters' changes added.

    The model stays as it is.
    """
    state = model.state_dict()
    for name, layer in model.named_modules():
        if _has_adapter(layer):
            own = {key: state.pop(key) for key in list(state) if key.startswith(f"{name}.")}
            state[f"{name}.weight"] = own[f"{name}.base_layer.weight"] + layer.get_delta_weight("default").detach()
            if layer.base_layer.bias is not None:
                state[f"{name}.bias"] = own[f"{name}.base_layer.bias"]
    return state


def freezing_table(gpt2: PreTrainedModel) -> "pd.DataFrame":
    """Return one row per module of the language model and a total: what trains, and what it costs.

    The modules of GPT-2 are wte, wpe, each block and ln_f. Columns: module, trains ("yes", "no" or "partly"), tensors,
    parameters, trained (parameters that train), share (of all parameters, trained), optimizer_bytes (AdamW keeps two
    float32 moments for each trained parameter).
    """
    import pandas as pd  # here, because writing captions does without it

    rows = [_row(name, list(module.parameters())) for name, module in find_parts(gpt2).all.items()]
    table = pd.DataFrame([*rows, _row("total", list(gpt2.parameters()))])
    table["share"] = table.trained / table.parameters.iloc[-1]
    table["optimizer_bytes"] = 2 * 4 * table.trained
    return table


def _row(name: str, parameters: list[nn.Parameter]) -> dict[str, object]:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    trains = "yes" if len(trained) == len(parameters) else "partly" if trained else "no"
    return {
        "module": name,
        "trains": trains,
        "tensors": len(parameters),
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trained": sum(parameter.numel() for parameter in trained),
    }


def _add_adapters(parts: Parts, rank: int, *, width: int) -> None:
    """Put an adapter of that rank beside each layer of `_adaptable`; at first it changes nothing."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("freezing is 'lora', which needs the library peft: pip install peft") from None
    if not 1 <= rank <= width:
        raise UserError(f"lora_rank is {rank}, but must be between 1 and {width}, the width of this language model")
    layers = {f"{block}.{name}": layer for block, inside in parts.blocks.items()
              for name, layer in _adaptable(inside).items()}  # fmt: skip
    transposed = any(isinstance(layer, Conv1D) for layer in layers.values())  # the weights of GPT-2's layers
    lora = LoraConfig(
        r=rank, lora_alpha=LORA_SCALE * rank, target_modules=list(layers), fan_in_fan_out=transposed
    )  # fmt: skip
    inject_adapter_in_model(lora, parts.stack)


def _adaptable(block: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers of a block that get an adapter: those of its attention, and what its MLP writes back.

    In GPT-2: attn.c_attn, attn.c_proj and mlp.c_proj.
    """
    return {
        name: layer for name, layer in block.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and ("att" in name or _widths(layer)[1] < _widths(layer)[0])
    }  # fmt: skip


def _widths(layer: nn.Linear | Conv1D) -> tuple[int, int]:
    """Return how many numbers a layer takes and gives."""
    return (layer.nx, layer.nf) if isinstance(layer, Conv1D) else (layer.in_features, layer.out_features)


def _has_adapter(module: nn.Module) -> bool:
    return hasattr(module, "lora_A")
