"""Does it see? Captions of held-out pictures, judged, and what the picture tells the captioner, in nats a token."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from .atomic import atomic_path, write_json
from .batches import CaptionBatches
from .captioner import Captioner
from .embeddings import EmbeddingCache
from .errors import UserError
from .likelihood import Likelihood
from .scenes import Scene, is_right, read_caption
from .writer import CaptionWriter, Decoding

DERANGEMENTS = 5  # how often the embeddings are shuffled for the control
RESAMPLES = 2000  # of the bootstrap


def evaluate(
    writer: CaptionWriter,
    captions: pd.DataFrame,
    cache: EmbeddingCache,
    out: str | Path,
    decoding: Decoding | None = None,
    facts: dict[str, Scene] | None = None,
    shuffle: bool = False,
) -> dict[str, Any]:
    """Caption every image of `captions` and measure; write `out/captions.csv` and `out/metrics.json`.

    captions: columns image_name and caption, the held-out references. facts: the drawn world's truth, to judge each
    caption right or wrong. shuffle: give every image the embedding of another one, the control of everything measured.
    Returns what metrics.json holds. Raises UserError when fewer than two images can be evaluated.
    """
    batches = CaptionBatches(captions, cache, writer.tokenizer, 64, writer.captioner.longest_caption)
    names = batches.image_names
    if len(names) < 2:
        raise UserError(f"only {len(names)} image can be evaluated, but the shuffled control needs at least 2")
    others = cache.array(names[number] for number in derangement(len(names), seed=0))
    written = writer.write(others if shuffle else batches.embeddings, decoding)
    metrics: dict[str, Any] = {
        "images": len(names),
        "images_without_embedding": len(batches.missing),
        "references": len(batches.captions),
        "embeddings": "shuffled" if shuffle else "true",
        "distinct_captions": len(set(written)),
        **picture_information(writer.captioner, batches),
    }
    if facts is not None:
        metrics["correct"] = share_right(names, written, facts)
        if not shuffle:
            metrics["correct_shuffled"] = share_right(names, writer.write(others, decoding), facts)
    out = Path(out)
    with atomic_path(out / "captions.csv") as partial:
        pd.DataFrame({"image_name": names, "caption": written}).to_csv(partial, index=False)
    write_json(out / "metrics.json", metrics)
    return metrics


def share_right(names: list[str], captions: list[str], facts: dict[str, Scene]) -> float:
    """The share of captions in which every fact of the drawn scene is stated and right."""
    return float(np.mean([is_right(caption, facts[name]) for name, caption in zip(names, captions, strict=True)]))


def wrong_facts(caption: str, scene: Scene) -> list[str]:
    """The names of the facts that a caption of `scene` gets wrong; ["unreadable"] where it states no scene."""
    stated = read_caption(caption)
    if stated is None:
        return ["unreadable"]
    return [field.name for field in fields(Scene) if getattr(stated, field.name) != getattr(scene, field.name)]


def picture_information(captioner: Captioner, batches: CaptionBatches) -> dict[str, Any]:
    """How much better the references are predicted with their own picture than with another one or with none.

    Each value is a mean negative log-likelihood in nats a reference token: with the true embedding, with the shuffled
    ones (the mean of five derangements) and with the mean embedding of the training images. `gain` is shuffled minus
    true, with its 95 % interval from a paired bootstrap over images.
    """
    size = len(batches.image_names)
    variants = [torch.arange(size), None, *(derangement(size, seed) for seed in range(DERANGEMENTS))]
    sums = []  # of each variant, float64 [N]: nats summed over each image's reference tokens
    for order in tqdm(variants, desc="likelihood", unit="variant"):
        nats, tokens = _nats_by_image(captioner, batches, order)
        sums.append(nats)
    true, mean, shuffled = sums[0], sums[1], np.mean(sums[2:], axis=0)
    low, high = bootstrap_interval(shuffled - true, tokens)
    return {
        "nats_per_token_true": float(true.sum() / tokens.sum()),
        "nats_per_token_shuffled": float(shuffled.sum() / tokens.sum()),
        "nats_per_token_mean": float(mean.sum() / tokens.sum()),
        "gain": float((shuffled - true).sum() / tokens.sum()),
        "gain_95_interval": [low, high],
    }


def bootstrap_interval(differences: np.ndarray, weights: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of sum(differences) / sum(weights) over resampled images; both float [N]."""
    chosen = np.random.default_rng(seed).integers(len(weights), size=(RESAMPLES, len(weights)))
    low, high = np.quantile(differences[chosen].sum(axis=1) / weights[chosen].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def derangement(size: int, seed: int) -> torch.Tensor:
    """A random order of 0 ... size-1 in which no element keeps its place, int64 [size]: one long cycle."""
    cycle = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    order = torch.empty_like(cycle)
    order[cycle] = cycle.roll(1)
    return order


@torch.no_grad()
def _nats_by_image(
    captioner: Captioner, batches: CaptionBatches, order: torch.Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihood and number of the reference tokens of each image, float64 [N] each.

    order: int64 [N], whose embedding each image gets; None gives all of them the mean one.
    """
    nats = torch.zeros(len(batches.image_names), dtype=torch.float64)
    tokens = torch.zeros_like(nats)
    likelihood, mean = Likelihood(captioner).eval(), captioner.mean_embedding.cpu()
    for rows in batches.in_order():
        images = batches.image_of[rows]
        embeddings = mean.expand(len(images), *mean.shape) if order is None else batches.embeddings[order[images]]
        packed = likelihood.pack(batches.rows(rows)._replace(embeddings=embeddings))
        image_of = images[packed.captions.flatten()[packed.sources].cpu()]  # int64 [N], of each token
        nats.index_add_(0, image_of, likelihood.nats(packed).double().cpu())
        tokens.index_add_(0, image_of, torch.ones(len(image_of), dtype=torch.float64))
    return nats.numpy(), tokens.numpy()
