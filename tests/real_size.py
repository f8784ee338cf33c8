"""The real architectures with random weights in the hub's layout, to measure their cost offline."""

import shutil
from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    PreTrainedModel,
)

from helpers.encoders.processor import CLIPImageProcessor

LARGE_CLIP = {
    "vision_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                      "num_attention_heads": 16, "patch_size": 14, "projection_dim": 768},
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768},
    "projection_dim": 768,
}  # fmt: skip
CLIPS = {"openai/clip-vit-base-patch32": {}, "openai/clip-vit-large-patch14": LARGE_CLIP}
GPT2S = {"gpt2": {}, "gpt2-medium": {"n_embd": 1024, "n_layer": 24, "n_head": 16}}


def write_clip(folder: Path, tokenizers: Path, name: str = "openai/clip-vit-base-patch32") -> Path:
    """Save a random CLIP of that shape, its image processor, and CLIP's tokenizer from `tokenizers`/clip."""
    torch.manual_seed(0)
    _write(CLIPModel(CLIPConfig(**CLIPS[name])), folder)
    CLIPImageProcessor().save_pretrained(folder)
    vocabulary, merges = (str(tokenizers / "clip" / part) for part in ("vocab.json", "merges.txt"))
    CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77).save_pretrained(folder)
    return folder


def write_gpt2(folder: Path, tokenizers: Path, name: str = "gpt2") -> Path:
    """Save a random GPT-2 of that shape, and GPT-2's tokenizer from `tokenizers`/gpt2."""
    torch.manual_seed(0)
    _write(GPT2LMHeadModel(GPT2Config(**GPT2S[name])), folder)
    vocabulary, merges = (str(tokenizers / "gpt2" / part) for part in ("vocab.json", "merges.txt"))
    GPT2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=1024).save_pretrained(folder)
    return folder


def _write(model: PreTrainedModel, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
