"""A small CLIP and a small GPT-2 trained from scratch on one's own pictures and captions, as Hugging Face folders.

They stand where the downloaded pair stands otherwise: the captioner freezes this CLIP and partially freezes this GPT-2.
"""

import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tokenizers.processors import TemplateProcessing
from transformers import CLIPModel, GPT2LMHeadModel, PreTrainedTokenizerFast

from ..errors import UserError
from ..models.vision import CLIPImageProcessor
from ..runtime.files import atomic_path, write_json
from .data import Facts, decode, read_text
from .small_clip import TEXT_TOKENS, build_clip, build_processor, encode_pictures, retrieval, train_clip
from .small_gpt2 import END_OF_TEXT, build_gpt2, nll_per_token, train_gpt2, train_tokenizer


@dataclass(frozen=True)
class Recipe:
    """Shapes and training of the pair. The defaults are the drawn world's, measured in helpers/tiny/README.md."""

    # The small CLIP.
    image_size: int = 64  # pixels, both ways
    stored_size: int = 64  # pixels that a training picture is kept at, so that crops can be taken from it
    patch: int = 16  # pixels, both ways
    width: int = 128  # of the vision tower: the D of its embeddings
    layers: int = 3
    text_width: int = 64
    text_layers: int = 2
    clip_steps: int = 1800
    clip_batch: int = 64  # pictures that are told apart in a step
    clip_lr: float = 1e-3  # peak
    fact_weight: float = 1.0  # of the classification loss beside the matching one, where facts are known
    vary: bool = False  # crop, mirror and recolor: photographs bear it, "a red circle left of" does not

    # The small GPT-2.
    vocabulary: int = 512  # entries of the BPE at most, 256 bytes and the end-of-text among them
    gpt2_width: int = 128  # E
    gpt2_layers: int = 3
    gpt2_steps: int = 400
    gpt2_batch: int = 16  # rows of 96 tokens
    gpt2_lr: float = 2e-3  # peak
    gpt2_dropout: float = 0.0

    share_tokens: bool = False  # start CLIP's text tower from GPT-2's token embeddings; the widths must be equal
    seed: int = 0  # weights, order, crops


RECIPES = {
    "drawn": Recipe(),
    "photos": Recipe(
        image_size=96, stored_size=128, layers=4, text_width=128, clip_steps=800, clip_batch=128, vary=True,
        vocabulary=4096, gpt2_layers=4, gpt2_steps=1200, gpt2_dropout=0.1, share_tokens=True,
    ),
}  # fmt: skip


def pretrain(
    images: str | Path,
    captions: pd.DataFrame,
    out: str | Path,
    preset: str = "drawn",
    facts: str | Path | None = None,
    text: str | Path | None = None,
    **values: Any,
) -> dict[str, Any]:
    """Train the pair on the captions whose split is "train"; return the report, which `out/report.json` keeps.

    images: the folder of the pictures. captions: columns image_name, caption, split. facts: a JSON file of each
    picture's facts by name, which CLIP then learns to name as well. text: what GPT-2 and the BPE learn from instead of
    those captions, see `read_text`. values: fields of `Recipe` to change.
    Writes `out/clip` and `out/gpt2`. Raises UserError where the data cannot be used.
    """
    if preset not in RECIPES:
        raise UserError(f"preset is {preset!r}, but must be one of {', '.join(RECIPES)}")
    if unknown := sorted(set(values) - {field.name for field in fields(Recipe)}):
        raise UserError(f"a recipe has no field {', '.join(unknown)}")
    recipe, images, out = replace(RECIPES[preset], **values), Path(images), Path(out)
    if recipe.share_tokens and recipe.text_width != recipe.gpt2_width:
        raise UserError(
            f"text_width is {recipe.text_width} and gpt2_width {recipe.gpt2_width}: share_tokens needs equal widths"
        )
    trained, held_out = captions[captions.split == "train"], captions[captions.split != "train"]
    for split, part in (("train on", trained), ("hold out", held_out)):
        if part.image_name.nunique() < 2:
            raise UserError(f"{part.image_name.nunique()} pictures to {split}, but pretraining needs at least 2")
    known = None if facts is None else Facts.read(facts, sorted(set(captions.image_name)))
    corpus = list(trained.caption) if text is None else read_text(text)

    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        gpt2, tokenizer, gpt2_report = _make_gpt2(recipe, corpus, list(held_out.caption))
        clip, processor, clip_report = _make_clip(recipe, images, trained, held_out, known, gpt2, tokenizer)
    report = {"preset": preset, **clip_report, **gpt2_report}
    report["threads"] = torch.get_num_threads()
    report["seconds"] = round(time.perf_counter() - started, 1)
    report["recipe"] = asdict(recipe)
    _save(out, clip, processor, gpt2, tokenizer)
    write_json(out / "report.json", report)
    return report


def _make_gpt2(
    recipe: Recipe, corpus: list[str], held_out: list[str]
) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast, dict[str, Any]]:
    started = time.process_time()
    tokenizer = train_tokenizer(corpus, recipe.vocabulary)
    gpt2 = build_gpt2(
        len(tokenizer), tokenizer.eos_token_id, recipe.gpt2_width, recipe.gpt2_layers, recipe.gpt2_dropout
    )
    losses = train_gpt2(
        gpt2, _ids(tokenizer, corpus), recipe.gpt2_steps, recipe.gpt2_batch, recipe.gpt2_lr,
        torch.Generator().manual_seed(recipe.seed),
    )  # fmt: skip
    return gpt2, tokenizer, {
        "gpt2_captions": len(corpus),
        "gpt2_parameters": gpt2.num_parameters(),
        "gpt2_first_loss": losses[0],
        "gpt2_last_loss": _mean(losses[-20:]),
        "gpt2_held_out_nll_per_token": nll_per_token(gpt2, _ids(tokenizer, held_out)),
        "gpt2_cpu_seconds": round(time.process_time() - started, 1),
    }  # fmt: skip


def _make_clip(
    recipe: Recipe, images: Path, trained: pd.DataFrame, held_out: pd.DataFrame, facts: Facts | None,
    gpt2: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast,
) -> tuple[CLIPModel, CLIPImageProcessor, dict[str, Any]]:  # fmt: skip
    processor, storing = build_processor(recipe.image_size), build_processor(recipe.stored_size)
    names, pictures, left_out = decode(images, sorted(set(trained.image_name)), storing)
    unseen_names, unseen, unseen_left_out = decode(images, sorted(set(held_out.image_name)), processor)
    started = time.process_time()
    clip = build_clip(
        recipe.image_size, recipe.patch, recipe.width, recipe.layers, recipe.text_width, recipe.text_layers,
        len(tokenizer), tokenizer.eos_token_id,
    )  # fmt: skip
    if recipe.share_tokens:
        with torch.no_grad():
            clip.text_model.embeddings.token_embedding.weight.copy_(gpt2.transformer.wte.weight)
    losses, heads = train_clip(
        clip, processor, pictures, _texts(tokenizer, trained, names), facts and facts.labels(names),
        recipe.clip_steps, recipe.clip_batch, recipe.clip_lr, recipe.fact_weight, recipe.vary,
        torch.Generator().manual_seed(recipe.seed),
    )  # fmt: skip
    pooled = encode_pictures(clip, processor, unseen)  # [N, D]
    found = retrieval(clip, pooled, _texts(tokenizer, held_out, unseen_names))
    report = {
        "clip_pictures": len(names),
        "clip_parameters": clip.num_parameters(),
        "clip_first_loss": losses[0],
        "clip_last_loss": _mean(losses[-20:]),
        **{f"held_out_{name}": value for name, value in found.items()},
        "clip_cpu_seconds": round(time.process_time() - started, 1),
        "left_out": left_out | unseen_left_out,
    }
    if facts is not None:
        with torch.no_grad():
            report["held_out_facts_right"] = facts.right(unseen_names, heads(pooled))
    return clip, processor, report


def _ids(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> list[list[int]]:
    return tokenizer(captions, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]


def _texts(tokenizer: PreTrainedTokenizerFast, captions: pd.DataFrame, names: list[str]) -> list[list[list[int]]]:
    """The token ids of every caption of every name, in the order of `names`."""
    by_name: dict[str, list[list[int]]] = {name: [] for name in names}
    for name, ids in zip(captions.image_name, _ids(tokenizer, list(captions.caption)), strict=True):
        if name in by_name:
            by_name[name].append(ids)
    return list(by_name.values())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _save(
    out: Path, clip: CLIPModel, processor: CLIPImageProcessor, gpt2: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Two ordinary Hugging Face folders, each whole or not there."""
    with atomic_path(out / "gpt2") as folder:
        gpt2.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    # A text for CLIP ends with the end-of-text and is padded with it; the text tower pools at the first one.
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END_OF_TEXT}", special_tokens=[(END_OF_TEXT, tokenizer.eos_token_id)]
    )
    closing = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT, model_max_length=TEXT_TOKENS,
    )  # fmt: skip
    with atomic_path(out / "clip") as folder:
        clip.save_pretrained(folder)
        processor.save_pretrained(folder)
        closing.save_pretrained(folder)
