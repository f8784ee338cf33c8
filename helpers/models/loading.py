"""Loading pretrained models, an image encoder and a language model: from the hub, a folder, or `helpers/tiny`."""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..encoders.locked_clip import LockedClipConfig
from ..encoders.processor import load_processor
from ..encoders.vision import TOWERS, ImageEncoder, tower_choices, tower_class
from ..errors import UserError
from ..language.language_model import check_reading, language_model_class
from ..language.tokenizer import load_tokenizer, refuse_another
from ..runtime.device import use_threads_for
from ..runtime.libraries import one_line_errors, quietly
from ..runtime.model_folders import find_model
from ..runtime.weight_files import find_weights, tensor_shapes
from .captioner_config import CaptionerConfig

TWO_TOWERS = ("clip", "siglip")  # model types with a text tower beside the vision tower
DEPTHS = ("n_layer", "num_hidden_layers", "mapper_layers")  # in configs
BESIDE_WEIGHTS = 3 * 10**8  # numbers that a model may hold beside its weights, such as GPT-Neo's masks
# Our own model types that hold a vision tower or a language model, with the names that it has in them.
HOLDERS = {
    LockedClipConfig.model_type: {"vision": "vision_model"},
    CaptionerConfig.model_type: {"vision": "clip", "text": "gpt2"},
}


def load_encoder(
    name: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, pooling: str = "pooled"
) -> ImageEncoder:
    """Load an image encoder, frozen and in eval mode, onto `device`: the vision tower of a checkpoint.

    name: a name on the Hugging Face hub, a folder in the hub's layout, or "tiny" or "photo". pooling: "pooled"
    embeddings [B, D], "patches" [B, S, D], "projected" (CLIP only) or "stages" (EfficientNet-Lite only) [B, D'].
    Raises UserError if the checkpoint is not found, is of another kind, lacks tensors, or its image processor makes
    pictures of a size that its tower does not take.
    """
    source, what = find_model(name, "clip"), "vision tower"
    whole = load_config(source, types=(*TOWERS, *TWO_TOWERS, *HOLDERS), what=what)
    config = getattr(whole, "vision_config", whole)
    if whole.model_type in TWO_TOWERS and hasattr(whole, "projection_dim"):  # the tower's own config may have another
        config.projection_dim = whole.projection_dim
    kind, processor = tower_class(config, pooling), load_processor(source, config, what=what)
    vision = load_weights(kind, source, config, what=what, **tower_choices(config), **_inside(whole, "vision"))
    return ImageEncoder(vision.requires_grad_(False).eval().to(device, dtype), processor, str(name), pooling)


def load_gpt2(name: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a GPT-2 or another language model, in float32 on the CPU and in eval mode, and its tokenizer.

    name: as in `load_encoder`. Raises UserError if it is not found, is of a type that the captioner cannot take, lacks
    tensors, or the tokenizer does not fit the model.
    """
    source, what = find_model(name, "gpt2"), "language model"
    whole = load_config(source, what=what)
    config = whole.text_config if isinstance(whole, CaptionerConfig) else whole
    kind = language_model_class(config)
    if getattr(config, "activation_function", None) == "gelu_new":
        config.activation_function = "gelu_pytorch_tanh"  # the same function, in one operation
    gpt2 = load_weights(kind, source, config, what=what, **_inside(whole, "text")).eval()
    with one_line_errors(source, what):
        check_reading(gpt2)
    tokenizer = load_tokenizer(source, config.vocab_size, what="tokenizer")
    if isinstance(whole, CaptionerConfig):
        refuse_another(tokenizer, source, vocabulary=config.vocab_size, sha256=whole.tokenizer_sha256)
    # Training puts the tokenizer's end-of-text behind a caption, so writing stops there. Where there is no token that
    # begins a text, it begins behind the end of another.
    gpt2.config.eos_token_id = tokenizer.eos_token_id
    gpt2.config.bos_token_id = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return gpt2, tokenizer


def _inside(whole: PreTrainedConfig, part: str) -> dict[str, Any]:
    """Return the arguments for `load_weights` that find a part of one of HOLDERS by its name there."""
    name = HOLDERS.get(whole.model_type, {}).get(part)
    return {"key_mapping": {rf"^{name}\.": ""}} if name else {}


def load_config(source: str, *, what: str, types: tuple[str, ...] = ()) -> PreTrainedConfig:
    """Load the config of a model of one of these types, or of any. what: its name in messages.

    Raises UserError if it cannot be loaded or is of another type.
    """
    with one_line_errors(source, what):
        if Path(source).is_dir() and not (Path(source) / "config.json").exists():
            if any(Path(source).glob("open_clip_*.*")):
                raise UserError(
                    f"{source} is in open_clip's layout: give what `clipxgpt convert open-clip` makes of its weights"
                )
            raise OSError("it has no config.json")  # or the type of model is guessed from the folder's name
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if types and config.model_type not in types:
        raise UserError(f"{source} is a model of type {config.model_type}, but a {what} is needed here; name one")
    return config


def load_weights(
    kind: type[PreTrainedModel], source: str, config: PreTrainedConfig, *, what: str, **choices: Any
) -> Any:
    """Load a model in float32 with every tensor from the checkpoint, and choose the threads for its size.

    choices: arguments of the model's class, and of its `from_pretrained`. what: its name in messages. Raises UserError
    if the checkpoint lacks tensors or has more layers than its config, if the config describes more than the checkpoint
    holds, or if a number in it is not finite.
    """
    with one_line_errors(source, what), quietly():
        files = find_weights(source)
        own = {name: value for name, value in choices.items() if name != "key_mapping"}
        _refuse_claims(partial(kind, config, **own), source, config, tensor_shapes(files))
        model, report = kind.from_pretrained(
            source, config=config, output_loading_info=True, dtype=torch.float32, trust_remote_code=False,
            use_safetensors=all(file.suffix == ".safetensors" for file in files), **choices,
        )  # fmt: skip
    missing = sorted(map(str, report["missing_keys"]))
    if missing:
        raise UserError(
            f"{source} lacks {len(missing)} tensors of a {what}, such as {missing[0]}; give a whole checkpoint"
        )
    known = model.state_dict()
    for name in sorted(map(str, report["unexpected_keys"])):
        if re.sub(r"\.\d+\.", ".0.", name, count=1) in known:
            raise UserError(
                f"{source} has more layers than its config.json says, such as {name}; correct its config.json"
            )
    refuse_non_finite(known, source, what=what)
    use_threads_for(model.num_parameters())
    return model


def refuse_non_finite(tensors: Mapping[str, torch.Tensor], source: str, *, what: str) -> None:
    """Raise UserError if a number in tensors from `source` is NaN or infinite. what: the model's name in messages."""
    for name, tensor in tensors.items():
        if not tensor.sum().isfinite() and not tensor.isfinite().all():  # the sum is the faster question
            raise UserError(
                f"{source} has numbers in {name} that are not finite; give another checkpoint of this {what}"
            )


def _refuse_claims(
    build: Callable[[], PreTrainedModel], source: str, config: PreTrainedConfig, held: dict[str, tuple[int, ...]]
) -> None:
    """Raise UserError if the config describes more than the tensors of those shapes, before memory is taken for it.

    build: builds the model; here without memory, on PyTorch's device "meta".
    """
    if not held:
        return  # loading says which file it looked for

    def refuse_layers(settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            if isinstance(value, dict):
                refuse_layers(value)
            elif (
                ("layer" in str(name) or name == "familiarity")
                and isinstance(value, int | float)
                and not value <= len(held)
            ):
                raise UserError(
                    f"{source} has {name} {value} in its config.json, but only {len(held)} tensors; correct it"
                )
            elif name in DEPTHS and isinstance(value, int) and value < 1:
                raise UserError(f"{source} has {name} {value} in its config.json, but at least 1 is needed; correct it")

    refuse_layers(config.to_dict())
    with torch.device("meta"):
        model = build()
    model.tie_weights()  # not every version does this on the meta device
    claimed = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    numbers = sum(map(math.prod, held.values()))
    if claimed > numbers + BESIDE_WEIGHTS:
        raise UserError(
            f"{source} describes {claimed:,} numbers in its config.json, but its weights are {numbers:,}; correct it"
        )
