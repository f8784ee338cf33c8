"""Tensors of published files, for all conversions: the state dict of a file, and the GPT-2 in it.

Sizes are read from the tensors. What a file of weights does not tell is as published, or an option of the command.
"""

import re
from pathlib import Path

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from ..errors import UserError
from ..language.tokenizer import load_tokenizer
from ..models.loading import refuse_non_finite
from ..runtime.model_folders import find_model
from ..runtime.weight_files import read_pickled

HEAD_WIDTH = 64  # numbers per attention head, in every published GPT-2 and CLIP
GPT2_NAMES = {768: "gpt2", 1024: "gpt2-medium", 1280: "gpt2-large", 1600: "gpt2-xl"}  # on the hub, by width
MASKS = re.compile(r"^transformer\.h\.\d+\.attn\.(bias|masked_bias)$")  # older versions of transformers saved them

State = dict[str, torch.Tensor]


def read_state(file: Path, marks: tuple[str, ...], *, what: str) -> State:
    """Return the float32 tensors of a checkpoint by their names in its model.

    The state dict may stand alone, or as "model_state_dict" or "state_dict" among other things, and all names may begin
    with the same word, such as "module.". marks: names by which the model is known. what: its name in messages. Raises
    UserError if none of them is there, if the file holds more than tensors and plain values, or if a number in it is
    not finite.
    """
    content = read_pickled(file)
    for key in ("model_state_dict", "state_dict"):
        content = content[key] if isinstance(content.get(key), dict) else content
    found = next((name[: -len(mark)] for name in map(str, content) for mark in marks if name.endswith(mark)), None)
    if found is None:
        raise UserError(
            f"{file} is no checkpoint of {what}: it has none of {', '.join(marks)}; name the kind that it is"
        )
    tensors = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, torch.Tensor)}
    state = {name: tensor.float() for name, tensor in part(tensors, found).items()}
    refuse_non_finite(state, str(file), what=what)
    return state


def part(state: State, prefix: str) -> State:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def refuse_others(state: State, prefixes: tuple[str, ...], file: Path, *, what: str) -> None:
    """Raise UserError if there are tensors of other modules: without them the captions may be others."""
    if others := [name for name in state if not name.startswith(prefixes)]:
        raise UserError(f"{file} holds {len(others)} tensors that are no part of {what}, such as {others[0]}; save it "
                        "without them")  # fmt: skip


def count_layers(state: State, pattern: str, file: Path) -> int:
    """Return the number of layers whose tensors' names begin with `pattern` and a number. Raises UserError at none."""
    numbers = {match[1] for name in state if (match := re.match(rf"{pattern}(\d+)\.", name))}
    if not numbers:
        begin = pattern.replace("\\", "")
        raise UserError(f"{file} lacks layers, whose tensors begin with {begin}0; give a whole checkpoint")
    return len(numbers)


def tensor(state: State, name: str, file: Path, *, dimensions: int = 2) -> torch.Tensor:
    """Return a tensor. Raises UserError if it is not there, or has another number of dimensions or no numbers."""
    if name not in state:
        raise UserError(f"{file} lacks the tensor {name}; give a whole checkpoint, with GPT-2 in it")
    if state[name].ndim != dimensions or not state[name].numel():
        raise UserError(f"{file} has a {name} of shape {list(state[name].shape)}, which needs {dimensions} dimensions "
                        "that are not 0; name the kind that it is")  # fmt: skip
    return state[name]


def fill(module: nn.Module, state: State, file: Path) -> None:
    """Load all tensors of a module, no more and no fewer. Raises UserError if they do not fit."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:  # PyTorch lists what differs, line by line
        first = " ".join(line.strip() for line in str(error).splitlines()[1:2])
        raise UserError(
            f"{file} does not fit its kind ({first[:200].rstrip('.')}); name the kind that it is"
        ) from error


def build_gpt2(state: State, file: Path, name: str) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerBase]:
    """Build the GPT-2 whose tensors these are, in eval mode, and load its tokenizer.

    name: where its tokenizer is, on the hub or in a folder; "" is that GPT-2's own name on the hub. Raises UserError if
    tensors are lacking, or the tokenizer does not fit.
    """
    words, positions = (tensor(state, f"transformer.{each}.weight", file) for each in ("wte", "wpe"))
    vocabulary, width = words.shape
    if width % HEAD_WIDTH:
        raise UserError(f"{file} has a GPT-2 {width} wide, but GPT-2 has heads {HEAD_WIDTH} wide; give a GPT-2")
    name = name or GPT2_NAMES.get(width, "gpt2")
    tokenizer = load_tokenizer(find_model(name, "gpt2"), vocabulary, what="tokenizer")
    gpt2 = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary, n_positions=len(positions), n_embd=width,
            n_layer=count_layers(state, r"transformer\.h\.", file), n_head=width // HEAD_WIDTH,
            activation_function="gelu_pytorch_tanh", bos_token_id=tokenizer.bos_token_id or tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    kept = {name: tensor for name, tensor in state.items() if not MASKS.match(name)}
    if not torch.equal(kept.setdefault("lm_head.weight", words), words):
        raise UserError(
            f"{file} has an output layer of its own, but GPT-2's is tied to its word embeddings; give a GPT-2"
        )
    fill(gpt2, kept, file)
    return gpt2.eval(), tokenizer
