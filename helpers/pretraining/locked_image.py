"""Train a small CLIP of photographs around a frozen image tower, from cached embeddings (LiT: Zhai et al. 2022)."""

import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import trange
from transformers import PreTrainedTokenizerFast

from ..config import Config
from ..data.build_cache import open_cache
from ..data.dataset import Data
from ..encoders.locked_clip import LockedClip, LockedClipConfig, WordBagConfig
from ..errors import UserError
from ..models.loading import load_encoder
from ..runtime.device import use_threads_for
from ..runtime.files import atomic_path, write_json
from ..runtime.libraries import quietly
from ..training.optimizer import lr_at
from .small_clip import MAX_LOGIT_SCALE, contrastive_loss, decay_matrices, retrieval
from .small_gpt2 import END_OF_TEXT, train_tokenizer

VOCABULARY = 6000  # tokens
STEPS = 600  # optimizer steps
BATCH = 512  # photos that a step tells apart
PEAK = 1e-3  # learning rate
NOISE = 0.3  # standard deviation of the noise on standardised embeddings: 5,700 photos are few
WORDS_LEFT_OUT = 0.1  # share of the tokens that the text tower does not see in a step


def pretrain_locked(
    data: Data, vision: str | Path, out: str | Path, *, steps: int = STEPS, seed: int = 0
) -> dict[str, Any]:
    """Train the text tower and both projections on the captions whose split is "train"; return the report.

    vision: the frozen image encoder, as in `load_encoder`. Its embeddings are kept in `out/embeddings`. Saves
    `out/clip` and the report, `out/report.json`. The others' captions measure it: R@1, R@10 and the median rank of a
    caption's own photo, for "val" and "test" each. Raises UserError if the data cannot be used.
    """
    out = Path(out)
    encoder = load_encoder(vision)
    cache = open_cache(data, Config(clip=str(vision)), out / "embeddings")
    rows = data.captions[data.captions.image_name.isin(cache.image_names)]
    splits = {split: part for split, part in rows.groupby("split") if part.image_name.nunique() > 1}
    if "train" not in splits or len(splits) == 1:
        raise UserError("a training needs at least 2 photos to train on and 2 to hold out; give more photos")
    started = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = train_tokenizer(list(splits["train"].caption), VOCABULARY, lowercase=True)
        texts = WordBagConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
        clip = LockedClip(LockedClipConfig(encoder.vision.config, texts), encoder.vision)
        trained = clip.num_parameters(only_trainable=True)
        use_threads_for(trained)
        of_split = {split: _by_photo(part, tokenizer) for split, part in splits.items()}
        losses = train_locked(clip, cache.rows(of_split["train"]), list(of_split["train"].values()), steps=steps)
    report = {
        "vision": str(vision),
        "photos": len(of_split["train"]),
        "captions": len(splits["train"]),
        "trained_parameters": trained,
        "first_loss": losses[0],
        "last_loss": sum(losses[-20:]) / len(losses[-20:]),
        "cpu_seconds": round(time.process_time() - started, 1),
        "seed": seed,
        "steps": steps,
    }
    for split in sorted(set(of_split) - {"train"}):
        report[split] = retrieval(clip, cache.rows(of_split[split]), list(of_split[split].values()))
    _save(out / "clip", clip, processor=encoder.processor, tokenizer=tokenizer)
    write_json(out / "report.json", report)
    return report


def train_locked(
    clip: LockedClip, pooled: torch.Tensor, texts: list[list[list[int]]], *, steps: int = STEPS
) -> list[float]:
    """Train all but the image tower; return the loss of every step in nats.

    pooled: the photos' embeddings, float32 [N, D]. texts: for each photo the token ids of its captions.
    """
    projection = clip.visual_projection
    projection.mean.copy_(pooled.mean(dim=0))
    projection.std.copy_(pooled.std(dim=0).clamp_min(1e-4))
    parameters = [parameter for parameter in clip.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(decay_matrices(parameters, 0.1), betas=(0.9, 0.98))
    batch, losses = min(BATCH, len(pooled)), []
    clip.train()
    for step in (bar := trange(steps, desc="locked clip", unit="step")):
        rows = torch.randperm(len(pooled))[:batch]
        captions = [texts[row][torch.randint(len(texts[row]), ()).item()] for row in rows.tolist()]
        noise = NOISE * projection.std * torch.randn(batch, pooled.shape[1])
        image = F.normalize(projection(pooled[rows] + noise), dim=1)  # [B, PROJECTION]
        text = F.normalize(clip.text_projection(_read(clip, captions)), dim=1)
        loss = contrastive_loss(clip, image, text)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, steps, peak=PEAK, warmup=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    clip.eval()
    return losses


def _read(clip: LockedClip, captions: list[list[int]]) -> torch.Tensor:
    """Return the text tower's pooled output [B, W] for token ids, some of which it does not see."""
    rows, ending = [torch.tensor(caption) for caption in captions], clip.config.text_config.eos_token_id
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=ending)  # [B, T]
    kept = torch.rand(ids.shape) >= WORDS_LEFT_OUT
    kept[:, 0] = True  # so that something is left
    return clip.text_model(ids, kept).pooler_output


def _by_photo(captions: pd.DataFrame, tokenizer: PreTrainedTokenizerFast) -> dict[str, list[list[int]]]:
    """Return for each photo the token ids of its captions."""
    ids = tokenizer(list(captions.caption), add_special_tokens=False, split_special_tokens=True, verbose=False)
    by_name: dict[str, list[list[int]]] = {}
    for name, row in zip(captions.image_name, ids["input_ids"], strict=True):
        by_name.setdefault(name, []).append(row)
    return by_name


def _save(folder: Path, clip: LockedClip, *, processor: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    reading = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT,
        model_max_length=clip.config.text_config.max_position_embeddings,
    )  # fmt: skip
    with atomic_path(folder) as partial, quietly():
        for part in (clip, processor, reading):
            part.save_pretrained(partial)
