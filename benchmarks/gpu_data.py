"""A pair of models with random weights in the hub's layout, and photos with random captions, for a real training."""

import os
from pathlib import Path

import pandas as pd
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks import models
from benchmarks.arms import save_photos
from helpers.data.build_cache import build_cache
from helpers.encoders.processor import CLIPImageProcessor
from helpers.models.loading import load_encoder

END = "<|endoftext|>"
DIFFERENT = 64  # photos; the others are the same files under other names


def photos(folder: Path, count: int) -> list[str]:
    """Return the names of that many photos in `folder`, made if they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"photo-{number:05}.jpg" for number in range(count)]
    if not (folder / names[-1]).exists():
        files = save_photos(folder, min(count, DIFFERENT))
        for number, name in enumerate(names):
            (folder / name).unlink(missing_ok=True)
            os.link(folder / files[number % len(files)], folder / name)
    return names


def image_processor(size: str) -> CLIPImageProcessor:
    """Return an image processor for pictures of the size that the vision tower takes."""
    pixels = models.CLIP[size].image_size
    return CLIPImageProcessor(size={"shortest_edge": pixels}, crop_size={"height": pixels, "width": pixels})


def pair(folder: Path, size: str) -> tuple[str, str]:
    """Return the folders of a CLIP and a GPT-2 of that size, saved if they are missing.

    The tokenizer has the 256 bytes and the end-of-text, so a caption of n letters has n + 1 tokens.
    """
    clip, gpt2 = folder / "clip", folder / "gpt2"
    if not gpt2.exists():
        models.vision_tower(size).save_pretrained(clip)
        image_processor(size).save_pretrained(clip)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(BPE({token: number for number, token in enumerate([*alphabet, END])}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END).save_pretrained(gpt2)
        ids = {"bos_token_id": len(alphabet), "eos_token_id": len(alphabet)}
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(**{**models.GPT2[size].to_dict(), **ids})).save_pretrained(gpt2)
    return str(clip), str(gpt2)


def captions_table(names: list[str], train: int, val: int) -> pd.DataFrame:
    """Return DataFrame[image_name, caption, split] of random letters with Flickr30k's lengths, photos in turn.

    train, val: captions in each split; the last eighth of the photos is held out.
    """
    generator = torch.Generator().manual_seed(2)
    held_out, rows = -(-len(names) // 8), []
    for split, some, count in (("train", names[:-held_out], train), ("val", names[-held_out:], val)):
        for number, length in enumerate(models.caption_lengths(count, generator).tolist()):
            letters = torch.randint(97, 123, (length - 1,), generator=generator).tolist()
            rows.append((some[number % len(some)], bytes(letters).decode(), split))
    return pd.DataFrame(rows, columns=["image_name", "caption", "split"])


def embedded(folder: Path, clip: str, count: int) -> list[str]:
    """Embed that many photos by the CLIP in the folder `clip`, into `folder`/cache; return their names."""
    names = photos(folder / "photos", count)
    build_cache(folder / "cache", folder / "photos", names, clip=load_encoder(clip))
    return names
