"""Low-rank adapters in a frozen GPT-2 (LoRA, Hu et al. 2021), by the library peft, and the weights they amount to."""

import torch
from torch import nn

from .errors import UserError

TARGETS = ("c_attn", "c_proj")  # what attends, and what every attention and MLP writes with
SCALE = 2  # alpha / rank, the usual one: a larger rank can say more, and does not say it louder


def adapters(blocks: int) -> list[str]:
    """The names of the modules in GPT-2's `transformer` that hold what of the adapters trains."""
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_proj")
    return [f"h.{block}.{layer}.{part}" for block in range(blocks) for layer in layers for part in ("lora_A", "lora_B")]


def add_adapters(transformer: nn.Module, rank: int) -> None:
    """Put an adapter of that rank beside each of GPT-2's layers named in TARGETS; at first it changes nothing.

    Raises UserError where peft is not installed, or the rank is too small or too large.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("freezing is 'lora', which needs the library peft: pip install peft") from None
    width = transformer.config.n_embd
    if not 1 <= rank <= width:
        raise UserError(f"lora_rank is {rank}, but must be between 1 and {width}, the width of this GPT-2")
    # GPT-2's layers are transformers' Conv1D, which keeps its weight the other way round: fan_in_fan_out.
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=list(TARGETS), fan_in_fan_out=True), transformer
    )


def merged_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of `model` as they were without adapters, with what these do added to them; it stays as it is."""
    state = model.state_dict()
    for name, layer in model.named_modules():
        if is_adapted(layer):
            own = {key: state.pop(key) for key in list(state) if key.startswith(f"{name}.")}
            state[f"{name}.weight"] = own[f"{name}.base_layer.weight"] + layer.get_delta_weight("default").detach()
            state[f"{name}.bias"] = own[f"{name}.base_layer.bias"]
    return state


def is_adapted(module: nn.Module) -> bool:
    """Whether it is a layer with an adapter beside it."""
    return hasattr(module, "lora_A")
