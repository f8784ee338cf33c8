"""Which GPT-2 tensors train, chosen by module name, and the table that shows it."""

import pandas as pd
import torch
from torch import nn
from transformers import GPT2LMHeadModel

from ..errors import UserError


def trained_modules(policy: str, blocks: int, last_n: int = 2, embeddings: bool = True) -> list[str]:
    """The names of GPT-2's modules that train under `policy`, in the order of the forward pass.

    `first-and-last` is what the original did: its "first and last 14 layers" are 14 *tensors* of
    `list(gpt2.parameters())` on either end, that is wte, wpe and the first block, then the last block and the final
    norm. `last-n` trains the last `last_n` blocks and the final norm. `lora` trains adapters beside the weights
    (lora.py). `embeddings` says whether wte and wpe join in under these three; wte is also the output layer, its
    weights are tied.
    Raises UserError on an unknown policy or more blocks than there are.
    """
    every_block = [f"h.{i}" for i in range(blocks)]
    if policy == "none":
        return ["wte", "wpe", *every_block, "ln_f"]
    if policy == "all":
        return []
    if policy == "first-and-last":
        trained = [every_block[0], *every_block[1:][-1:]]
    elif policy == "last-n":
        if not 1 <= last_n <= blocks:
            raise UserError(f"last_n is {last_n}, but this GPT-2 has {blocks} blocks: choose 1 to {blocks}")
        trained = every_block[-last_n:]
    elif policy == "lora":
        trained = adapters(blocks)
    else:
        raise UserError(f"freezing is {policy!r}, but must be one of none, all, first-and-last, last-n, lora")
    return [*(["wte", "wpe"] if embeddings else []), *trained, *(["ln_f"] if policy != "lora" else [])]


def freeze(gpt2: GPT2LMHeadModel, policy: str, last_n: int = 2, embeddings: bool = True, lora_rank: int = 8) -> None:
    """Let the tensors of `trained_modules` train and freeze all others, in place.

    Under `lora` GPT-2 gets its adapters. Raises UserError where it cannot have them, or has them already.
    """
    if any(map(is_adapted, gpt2.modules())):
        raise UserError("this GPT-2 has LoRA adapters already: load it anew to freeze it in another way")
    trained = trained_modules(policy, gpt2.config.n_layer, last_n, embeddings)
    if policy == "lora":
        add_adapters(gpt2.transformer, lora_rank)
    gpt2.requires_grad_(False)
    for name in trained:
        gpt2.transformer.get_submodule(name).requires_grad_(True)


def rest_frozen(model: torch.nn.Module) -> None:
    """Put every module of `model` whose parameters are all frozen into `eval()`, so that its dropout rests too."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def freezing_table(gpt2: GPT2LMHeadModel) -> pd.DataFrame:
    """One row a module of GPT-2 (wte, wpe, each block, ln_f) and a total: what trains, and what that costs.

    Columns: module, trains ("yes", "no" or "partly"), tensors, parameters, trained (parameters that train), share (of
    all parameters, trained), optimizer_bytes (AdamW keeps two float32 moments for each trained parameter).
    """
    names = ["wte", "wpe", *(f"h.{i}" for i in range(gpt2.config.n_layer)), "ln_f"]
    rows = [_row(name, list(gpt2.transformer.get_submodule(name).parameters())) for name in names]
    table = pd.DataFrame([*rows, _row("total", list(gpt2.parameters()))])
    table["share"] = table.trained / table.parameters.iloc[-1]
    table["optimizer_bytes"] = 2 * 4 * table.trained
    return table


def _row(name: str, parameters: list[torch.nn.Parameter]) -> dict[str, object]:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    trains = "yes" if len(trained) == len(parameters) else "partly" if trained else "no"
    return {
        "module": name,
        "trains": trains,
        "tensors": len(parameters),
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trained": sum(parameter.numel() for parameter in trained),
    }


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
