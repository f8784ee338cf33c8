"""Train a small CLIP and a small GPT-2 from scratch on one's own pictures and captions, as Hugging Face folders.

They replace the downloaded pair: a captioner freezes this CLIP and partially freezes this GPT-2.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tokenizers.processors import TemplateProcessing
from transformers import CLIPModel, GPT2LMHeadModel, PreTrainedTokenizerFast

from ..captions.read import read_text
from ..encoders.processor import CLIPImageProcessor
from ..errors import UserError
from ..runtime.device import use_threads_for
from ..runtime.files import atomic_path, write_json
from ..runtime.libraries import quietly
from .data import Facts, read_pictures
from .recipe import Recipe, choose_recipe
from .small_clip import TEXT_TOKENS, build_clip, build_processor, embed_pictures, retrieval, train_clip
from .small_gpt2 import END_OF_TEXT, build_gpt2, nll_per_token, train_gpt2, train_tokenizer


def pretrain(
    images: str | Path,
    captions: pd.DataFrame,
    out: str | Path,
    *,
    preset: str = "drawn",
    facts: str | Path | None = None,
    text: str | Path | None = None,
    **values: Any,
) -> dict[str, Any]:
    """Train the pair on the captions whose split is "train" and measure it on the others; return the report.

    images: the folder of the pictures. captions: columns image_name, caption, split. preset: "drawn" or "photos".
    facts: a JSON file {image_name: {fact: value}}; CLIP then learns to name the facts as well. text: a file that the
    tokenizer and GPT-2 learn from in place of the captions, without those of held-out pictures (`read_text`). values:
    fields of `Recipe` to change.
    Saves `out/clip`, `out/gpt2` and the report, `out/report.json`. Raises UserError if the data cannot be used.
    """
    recipe, images, out = choose_recipe(preset, **values), Path(images), Path(out)
    trained, held_out = captions[captions.split == "train"], captions[captions.split != "train"]
    for purpose, part in (("train on", trained), ("hold out", held_out)):
        if part.image_name.nunique() < 2:
            raise UserError(f"{part.image_name.nunique()} pictures to {purpose}, but pretraining needs at least 2")
    known = None if facts is None else Facts.read(facts, sorted(set(captions.image_name)))
    corpus = list(trained.caption) if text is None else read_text(text, captions=captions)

    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        gpt2, tokenizer, gpt2_report = _make_gpt2(recipe, corpus, list(held_out.caption))
        clip, processor, clip_report = _make_clip(
            recipe, trained, held_out, images=images, facts=known, gpt2=gpt2, tokenizer=tokenizer
        )
    report = {"preset": preset, **clip_report, **gpt2_report}
    report["threads"] = torch.get_num_threads()
    report["seconds"] = round(time.perf_counter() - started, 1)
    report["recipe"] = asdict(recipe)
    _save_gpt2(out / "gpt2", gpt2, tokenizer)
    _save_clip(out / "clip", clip, processor=processor, tokenizer=tokenizer)
    write_json(out / "report.json", report)
    return report


def pretrain_gpt2(text: str | Path, out: str | Path, *, preset: str = "captions", **values: Any) -> dict[str, Any]:
    """Train a GPT-2 alone on a file of captions and measure it on those held out; return the report.

    text: see `read_text`; the rows of other splits than "train" are held out, or every 20th caption if there are none.
    preset, values: as in `pretrain`. Saves `out/gpt2` and the report, `out/report.json`. Raises UserError if the file
    cannot be used.
    """
    recipe, out = choose_recipe(preset, **values), Path(out)
    corpus, held_out = read_text(text), read_text(text, held_out=True)
    if not held_out:
        corpus, held_out = [each for i, each in enumerate(corpus) if i % 20], corpus[::20]
    if not corpus:
        raise UserError(f"{text} has {len(held_out)} captions, but at least 2 are needed: give more text")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        gpt2, tokenizer, report = _make_gpt2(recipe, corpus, held_out)
    report = {"preset": preset, **report, "threads": torch.get_num_threads(), "recipe": asdict(recipe)}
    _save_gpt2(out / "gpt2", gpt2, tokenizer)
    write_json(out / "report.json", report)
    return report


def _make_gpt2(
    recipe: Recipe, corpus: list[str], held_out: list[str]
) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast, dict[str, Any]]:
    """Return GPT-2 and its tokenizer, trained on the texts of `corpus`, and their part of the report."""
    started = time.process_time()
    tokenizer = train_tokenizer(corpus, recipe.vocabulary, lowercase=recipe.lowercase)
    gpt2 = build_gpt2(recipe, vocabulary=len(tokenizer), end_of_text=tokenizer.eos_token_id)
    use_threads_for(gpt2.num_parameters())
    losses = train_gpt2(gpt2, _ids(tokenizer, corpus), recipe)
    return gpt2, tokenizer, {
        "gpt2_captions": len(corpus),
        "gpt2_parameters": gpt2.num_parameters(),
        "gpt2_first_loss": losses[0],
        "gpt2_last_loss": _mean(losses[-20:]),
        "gpt2_held_out_nll_per_token": nll_per_token(gpt2, _ids(tokenizer, held_out)),
        "gpt2_cpu_seconds": round(time.process_time() - started, 1),
    }  # fmt: skip


def _make_clip(
    recipe: Recipe,
    trained: pd.DataFrame,
    held_out: pd.DataFrame,
    *,
    images: Path,
    facts: Facts | None,
    gpt2: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
) -> tuple[CLIPModel, CLIPImageProcessor, dict[str, Any]]:
    """Return CLIP and its processor, trained on the captions `trained`, and their part of the report."""
    processor, storing = build_processor(recipe.image_size), build_processor(recipe.stored_size)
    names, pictures, left_out = read_pictures(images, sorted(set(trained.image_name)), storing)
    unseen_names, unseen, unseen_left_out = read_pictures(images, sorted(set(held_out.image_name)), processor)
    started = time.process_time()
    clip = build_clip(recipe, vocabulary=len(tokenizer), end_of_text=tokenizer.eos_token_id)
    if recipe.share_tokens:
        with torch.no_grad():
            clip.text_model.embeddings.token_embedding.weight.copy_(gpt2.transformer.wte.weight)
    losses, heads = train_clip(
        clip, processor, recipe, pictures=pictures, texts=_texts(tokenizer, trained, names),
        classes=None if facts is None else facts.classes(names), sizes=() if facts is None else facts.sizes(),
    )  # fmt: skip
    pooled = embed_pictures(clip, processor, unseen)  # [N, D]
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
    """Return the token ids of each caption, without an end-of-text."""
    return tokenizer(captions, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]


def _texts(tokenizer: PreTrainedTokenizerFast, captions: pd.DataFrame, names: list[str]) -> list[list[list[int]]]:
    """Return for each name, in this order, the token ids of all its captions."""
    by_name: dict[str, list[list[int]]] = {name: [] for name in names}
    for name, ids in zip(captions.image_name, _ids(tokenizer, list(captions.caption)), strict=True):
        if name in by_name:
            by_name[name].append(ids)
    return list(by_name.values())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _save_gpt2(folder: Path, gpt2: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
    with atomic_path(folder) as partial, quietly():
        gpt2.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


def _save_clip(
    folder: Path, clip: CLIPModel, *, processor: CLIPImageProcessor, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Save CLIP with a tokenizer that closes each text with an end-of-text and pads with it.

    The text tower pools at the first end-of-text. `tokenizer` itself is changed: save GPT-2's first.
    """
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END_OF_TEXT}", special_tokens=[(END_OF_TEXT, tokenizer.eos_token_id)]
    )
    closing = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT, model_max_length=TEXT_TOKENS,
    )  # fmt: skip
    with atomic_path(folder) as partial, quietly():
        clip.save_pretrained(partial)
        processor.save_pretrained(partial)
        closing.save_pretrained(partial)
