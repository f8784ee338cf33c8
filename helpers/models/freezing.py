"""The choice of the GPT-2 tensors that train, by module name; low-rank adapters; and the table of what they cost."""

from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn
from transformers import GPT2LMHeadModel

from ..errors import UserError

if TYPE_CHECKING:
    import pandas as pd

LORA_TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_proj")  # the layers of a block that get an adapter
LORA_SCALE = 2  # alpha / rank, the usual ratio: a larger rank can express more, at the same strength


class FreezingConfig(Protocol):
    """The fields of a config that say what trains; `Config` has them."""

    freezing: str  # "frozen", "first-and-last", "last-n", "lora" or "full"
    last_n: int  # blocks that train under "last-n"
    lora_rank: int  # rank of the adapters under "lora"
    train_embeddings: bool  # whether wte and wpe train, too, under "first-and-last", "last-n" and "lora"


def trained_modules(config: FreezingConfig, blocks: int) -> list[str]:
    """Return the names of GPT-2's modules that train under the config's policy, in the order of the forward pass.

    `first-and-last` is the original's: its "first and last 14 layers" are 14 *tensors* at either end of
    `list(gpt2.parameters())`, that is wte, wpe and the first block, then the last block and the final norm. `last-n`
    trains the last `last_n` blocks and the final norm. `lora` trains adapters beside frozen weights (LoRA, Hu et al.
    2021). wte is also the output layer, because its weights are tied.
    blocks: how many GPT-2 has. Raises UserError on an unknown policy or on more blocks than there are.
    """
    every_block = [f"h.{i}" for i in range(blocks)]
    if config.freezing == "frozen":
        return []
    if config.freezing == "full":
        return ["wte", "wpe", *every_block, "ln_f"]
    if config.freezing == "first-and-last":
        trained = [every_block[0], *every_block[1:][-1:], "ln_f"]
    elif config.freezing == "last-n":
        if not 1 <= config.last_n <= blocks:
            raise UserError(f"last_n is {config.last_n}, but this GPT-2 has {blocks} blocks: choose 1 to {blocks}")
        trained = [*every_block[-config.last_n :], "ln_f"]
    elif config.freezing == "lora":
        trained = [f"{block}.{layer}.{part}" for block in every_block for layer in LORA_TARGETS
                   for part in ("lora_A", "lora_B")]  # fmt: skip
    else:
        raise UserError(
            f"freezing is {config.freezing!r}, but must be one of frozen, first-and-last, last-n, lora, full"
        )
    return [*(["wte", "wpe"] if config.train_embeddings else []), *trained]


def freeze(gpt2: GPT2LMHeadModel, config: FreezingConfig) -> None:
    """Let the tensors of `trained_modules` train and freeze all others, in place.

    Under `lora` GPT-2 gets its adapters. Raises UserError if it cannot have them, or has them already.
    """
    if any(map(_has_adapter, gpt2.modules())):
        raise UserError("this GPT-2 has LoRA adapters already: load it again to freeze it in another way")
    trained = trained_modules(config, gpt2.config.n_layer)
    if config.freezing == "lora":
        _add_adapters(gpt2.transformer, config.lora_rank)
    gpt2.requires_grad_(False)
    for name in trained:
        gpt2.transformer.get_submodule(name).requires_grad_(True)


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
            state[f"{name}.bias"] = own[f"{name}.base_layer.bias"]
    return state


def freezing_table(gpt2: GPT2LMHeadModel) -> "pd.DataFrame":
    """Return one row per module of GPT-2 (wte, wpe, each block, ln_f) and a total: what trains, and what it costs.

    Columns: module, trains ("yes", "no" or "partly"), tensors, parameters, trained (parameters that train), share (of
    all parameters, trained), optimizer_bytes (AdamW keeps two float32 moments for each trained parameter).
    """
    import pandas as pd  # here, because writing captions does without it

    names = ["wte", "wpe", *(f"h.{i}" for i in range(gpt2.config.n_layer)), "ln_f"]
    rows = [_row(name, list(gpt2.transformer.get_submodule(name).parameters())) for name in names]
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


def _add_adapters(transformer: nn.Module, rank: int) -> None:
    """Put an adapter of that rank beside each layer of LORA_TARGETS; at first it changes nothing."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("freezing is 'lora', which needs the library peft: pip install peft") from None
    width = transformer.config.n_embd
    if not 1 <= rank <= width:
        raise UserError(f"lora_rank is {rank}, but must be between 1 and {width}, the width of this GPT-2")
    # GPT-2's layers are transformers' Conv1D, whose weight is transposed: fan_in_fan_out.
    lora = LoraConfig(r=rank, lora_alpha=LORA_SCALE * rank, target_modules=list(LORA_TARGETS), fan_in_fan_out=True)
    inject_adapter_in_model(lora, transformer)


def _has_adapter(module: nn.Module) -> bool:
    return hasattr(module, "lora_A")
