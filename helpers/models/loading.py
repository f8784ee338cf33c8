"""Loading pretrained models, an image encoder and a GPT-2: from the hub, a folder, or the pair in `helpers/tiny`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    GPT2LMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import logging

from ..config import REDUCED_TO, check_value
from ..encoders.locked_clip import LockedClipConfig
from ..encoders.vision import TOWERS, ImageEncoder, plain_setting, tower_choices, tower_class
from ..errors import UserError
from ..runtime.device import use_threads_for
from ..runtime.model_folders import find_model
from .captioner import CaptionerConfig

try:  # Pillow's resizing gives the same pixels with and without torchvision; since transformers 5.4 it has its own name
    from transformers import CLIPImageProcessorPil as CLIPImageProcessor

    PILLOW = {"backend": "pil"}
except ImportError:
    from transformers import CLIPImageProcessor

    PILLOW = {"use_fast": False}

__all__ = ["CLIPImageProcessor", "load_config", "load_encoder", "load_gpt2", "load_processor", "load_weights",
           "one_line_errors", "quietly"]  # fmt: skip

TWO_TOWERS = ("clip", "siglip")  # model types with a text tower beside the vision tower
# Our own model types that hold a vision tower or a GPT-2, with the names that it has in them.
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
    choices = tower_choices(config) | _inside(whole, "vision")
    vision = load_weights(tower_class(config, pooling), source, what=what, config=config, **choices)
    processor = load_processor(source, what=what)
    _match_size(str(name), vision.config, processor)
    return ImageEncoder(vision.requires_grad_(False).eval().to(device, dtype), processor, str(name), pooling)


def load_gpt2(name: str | Path) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerBase]:
    """Load a GPT-2, in float32 on the CPU and in eval mode, and its tokenizer.

    name: as in `load_encoder`. Raises UserError if it is not found, is no GPT-2, lacks tensors, or the tokenizer does
    not fit the model.
    """
    source = find_model(name, "gpt2")
    whole = load_config(source, types=("gpt2", CaptionerConfig.model_type), what="GPT-2")
    config = getattr(whole, "text_config", whole)
    if config.activation_function == "gelu_new":
        config.activation_function = "gelu_pytorch_tanh"  # the same function, in one operation
    gpt2 = load_weights(GPT2LMHeadModel, source, what="GPT-2", config=config, **_inside(whole, "text"))
    with one_line_errors(source, "GPT-2 tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source)
    size, vocabulary = len(tokenizer), gpt2.config.vocab_size
    if not 1 < size <= vocabulary or tokenizer.eos_token_id is None or not tokenizer("a dog")["input_ids"]:
        raise UserError(
            f"{name} has a tokenizer of {size} tokens that does not fit its GPT-2 of {vocabulary}, or no end-of-text; "
            "give a folder with the tokenizer that this GPT-2 was trained with"
        )
    return gpt2.eval(), tokenizer


def _inside(whole: PreTrainedConfig, part: str) -> dict[str, Any]:
    """Return the arguments for `load_weights` that find a part of one of HOLDERS by its name there."""
    name = HOLDERS.get(whole.model_type, {}).get(part)
    return {"key_mapping": {rf"^{name}\.": ""}} if name else {}


def load_config(source: str, *, types: tuple[str, ...], what: str) -> PreTrainedConfig:
    """Load the config of a model. Raises UserError if its type is none of `types`. what: its name in messages."""
    with one_line_errors(source, what):
        if Path(source).is_dir() and not (Path(source) / "config.json").exists():
            raise OSError("it has no config.json")  # or the type of model is guessed from the folder's name
        config = AutoConfig.from_pretrained(source)
    if config.model_type not in types:
        raise UserError(f"{source} is a model of type {config.model_type}, but a {what} is needed here; name one")
    return config


def load_weights(kind: type[PreTrainedModel], source: str, *, what: str, **choices: Any) -> Any:
    """Load a model in float32 with every tensor from the checkpoint, and choose the threads for its size.

    choices: arguments of the model's class. what: its name in messages. Raises UserError if it is not whole.
    """
    with one_line_errors(source, what), quietly():
        model, report = kind.from_pretrained(
            source, output_loading_info=True, dtype=torch.float32, use_safetensors=True, **choices
        )
    missing = sorted(map(str, report["missing_keys"]))
    if missing:
        raise UserError(
            f"{source} lacks {len(missing)} tensors of a {what}, such as {missing[0]}; give a whole checkpoint"
        )
    use_threads_for(model.num_parameters())
    return model


def load_processor(source: str, *, what: str) -> BaseImageProcessor:
    """Load a model's image processor, in the version that resizes by Pillow. what: the model's name in messages."""
    with one_line_errors(source, what), quietly():
        processor = AutoImageProcessor.from_pretrained(source, **PILLOW)
    side = getattr(processor, "reduce_to", None)
    if side is not None:
        setting = f"reduce_to in the preprocessor_config.json of {source}"
        if type(side) is not int:
            raise UserError(f"{setting} is {side!r}, but must be a whole number of pixels")
        check_value(setting, side, **REDUCED_TO)
    return processor


def _match_size(name: str, config: PreTrainedConfig, processor: BaseImageProcessor) -> None:
    """Raise UserError if the processor's pictures have another size than the tower takes.

    DINOv2 takes any size that its patches fill, because it interpolates its position embeddings; its config notes it.
    """
    cropping = getattr(processor, "do_center_crop", False)
    size, side = plain_setting(processor.crop_size if cropping else processor.size), config.image_size
    made = size.get("height", 0) if size.get("height") == size.get("width") else 0
    if config.model_type == "dinov2" and made and made % config.patch_size == 0:
        config.pixels = made
    elif size != {"height": side, "width": side}:
        raise UserError(
            f"{name} makes pictures of {size} pixels, but its tower takes {side} pixels both ways; correct its "
            "preprocessor_config.json"
        )


@contextmanager
def one_line_errors(source: str, what: str) -> Iterator[None]:
    """Turn whatever the libraries raise while they load from `source` into one UserError that names the source."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # transformers, safetensors and the hub's client each raise their own
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        if Path(source).is_dir():
            way_out = "give the folder of a whole model in the hub's layout, with model.safetensors"
        elif os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
            way_out = (
                "HF_HUB_OFFLINE is set and it is not in the local hub cache: give a local folder, or go online once"
            )
        else:
            way_out = "give a local folder, or check the name on huggingface.co and the internet connection"
        raise UserError(f"no {what} can be loaded from {source} ({reason.rstrip('.')}); {way_out}") from error


@contextmanager
def quietly() -> Iterator[None]:
    """Silence transformers' progress bars and warnings about what is intended, such as a text tower left unread."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
