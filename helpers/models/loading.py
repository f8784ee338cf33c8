"""Loading a pretrained CLIP and GPT-2: from a name on the hub, a local folder, or the pair in `helpers/tiny`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    CLIPVisionModel,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from ..errors import UserError
from ..runtime.device import use_threads_for
from .folder import find_model
from .vision import Clip, CLIPImageProcessor, plain_setting


def load_clip(
    name: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, pooling: str = "pooled"
) -> Clip:
    """Load the vision tower of a CLIP checkpoint, frozen and in eval mode, onto `device`.

    name: a name on the Hugging Face hub, a folder in the hub's layout, or "tiny". pooling: "pooled" embeddings [B, D]
    or "patches" [B, S, D]. Raises UserError if the checkpoint is not found, is no CLIP, lacks tensors, or its image
    processor makes pictures of a size that its tower does not take.
    """
    source = find_model(name, "clip")
    vision = load_model(CLIPVisionModel, source, types=("clip", "clip_vision_model"), what="CLIP")
    with one_line_errors(source, "CLIP"):
        processor = CLIPImageProcessor.from_pretrained(source)
    size, wanted = plain_setting(processor.crop_size), vision.config.image_size
    if size != {"height": wanted, "width": wanted}:
        raise UserError(
            f"{name} crops pictures to {size}, but its CLIP takes {wanted} pixels; correct its preprocessor_config.json"
        )
    return Clip(vision.requires_grad_(False).eval().to(device, dtype), processor, str(name), pooling)


def load_gpt2(name: str | Path) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerBase]:
    """Load a GPT-2, in float32 on the CPU and in eval mode, and its tokenizer.

    name: as in `load_clip`. Raises UserError if it is not found, is no GPT-2, lacks tensors, or the tokenizer does not
    fit the model.
    """
    source = find_model(name, "gpt2")
    gpt2 = load_model(GPT2LMHeadModel, source, types=("gpt2",), what="GPT-2")
    with one_line_errors(source, "GPT-2 tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source)
    size, vocabulary = len(tokenizer), gpt2.config.vocab_size
    if not 1 < size <= vocabulary or tokenizer.eos_token_id is None or not tokenizer("a dog")["input_ids"]:
        raise UserError(
            f"{name} has a tokenizer of {size} tokens that does not fit its GPT-2 of {vocabulary}, or no end-of-text; "
            "give a folder with the tokenizer that this GPT-2 was trained with"
        )
    return gpt2.eval(), tokenizer


def load_model(kind: type[PreTrainedModel], source: str, *, types: tuple[str, ...], what: str) -> Any:
    """Load a model in float32 with every tensor from the checkpoint, and choose the threads for its size.

    types: the model types that are accepted. what: the model's name in messages. Raises UserError otherwise.
    """
    with one_line_errors(source, what):
        if Path(source).is_dir() and not (Path(source) / "config.json").exists():
            raise OSError("it has no config.json")  # or the type of model is guessed from the folder's name
        config = AutoConfig.from_pretrained(source)
        if config.model_type not in types:
            raise UserError(f"{source} is a model of type {config.model_type}, but a {what} is needed here; name one")
        choices: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True}
        if getattr(config, "activation_function", None) == "gelu_new":  # GPT-2's: the same function, in one operation
            choices["activation_function"] = "gelu_pytorch_tanh"
        with quietly():
            model, report = kind.from_pretrained(source, output_loading_info=True, **choices)
    missing = sorted(map(str, report["missing_keys"]))
    if missing:
        raise UserError(
            f"{source} lacks {len(missing)} tensors of a {what}, such as {missing[0]}; give a whole checkpoint"
        )
    use_threads_for(model.num_parameters())
    return model


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
