"""Captions without the picture, captions copied from training, and what the picture tells in nats per token."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from tqdm import tqdm

from ..data.batches import CaptionBatches
from ..data.embedding_cache import EmbeddingCache, ImageEmbeddings
from ..errors import UserError
from ..models.captioner import Captioner
from ..training.loss import CaptionLoss
from .bootstrap import bootstrap_interval

CONTROLS = {  # by name, what metrics.json says of the embeddings
    "shuffled": "shuffled",
    "mean": "mean",
    "nearest": "none: a caption of the nearest training picture",
}
AT_A_TIME = 256  # pictures that are compared with all training pictures at once
DERANGEMENTS = 5  # shuffles of the embeddings, whose mean is the control


def shuffled(cache: EmbeddingCache, names: Sequence[str]) -> ImageEmbeddings:
    """Return, for each of N images, the embedding of another one of them: [N, D] or [N, S, D]."""
    return cache.of([names[number] for number in derangement(len(names), seed=0).tolist()])


def mean(captioner: Captioner, images: int) -> torch.Tensor:
    """Return the mean embedding of the training images, `images` times: [N, D] or [N, S, D], no picture at all."""
    return captioner.mean_embedding.cpu().expand(images, *captioner.embedding_shape)


def nearest_images(cache: EmbeddingCache, names: Sequence[str], among: Sequence[str]) -> list[str]:
    """Return, for each of the images `names`, the one in `among` whose embedding has the highest cosine with its own.

    Patches are compared by their class token. Raises UserError if an image has no embedding in the cache.
    """
    known = torch.cat(list(_unit_vectors(cache, among)))  # [M, D]
    return [among[place] for part in _unit_vectors(cache, names) for place in (part @ known.T).argmax(dim=1).tolist()]


def nearest_captions(cache: EmbeddingCache, names: Sequence[str], training: pd.DataFrame) -> list[str]:
    """Return, for each image, the first caption of the training picture nearest to it.

    training: the captions table of the train split; pictures that are not in the cache do not count. Raises UserError
    if none is left, or if one of them is among `names`: it would find its own caption.
    """
    known = set(cache.image_names)
    captions = training[training.image_name.isin(known)].drop_duplicates("image_name").set_index("image_name").caption
    if captions.empty:
        raise UserError("no training picture has an embedding, so none is nearest: embed those of the train split too")
    if leaked := sorted(set(names) & set(captions.index)):
        raise UserError(
            f"{len(leaked)} of the pictures are training pictures, such as {leaked[0]}, and each is the nearest to "
            "itself: evaluate held-out ones"
        )
    return list(captions[nearest_images(cache, names, list(captions.index))])


def picture_information(captioner: Captioner, batches: CaptionBatches) -> dict[str, Any]:
    """Return how much better the references are predicted with their own picture than with none or another one.

    nats_per_token_true, _shuffled and _mean are mean negative log-likelihoods in nats per reference token: with the
    image's own embedding, with another image's (the mean of five derangements), and with the mean embedding of the
    training images. `gain` is shuffled minus true, `gain_over_mean` mean minus true; each has its 95 % interval from a
    paired bootstrap over images.
    """
    size = len(batches.image_names)
    variants = [torch.arange(size), None, *(derangement(size, seed) for seed in range(DERANGEMENTS))]
    sums = []  # per variant, float64 [N]: nats summed over each image's reference tokens
    for order in tqdm(variants, desc="likelihood", unit="variant"):
        nats, tokens = _nats_by_image(captioner, batches, order)
        sums.append(nats)
    true, without, another = sums[0], sums[1], np.mean(sums[2:], axis=0)
    return {
        "nats_per_token_true": float(true.sum() / tokens.sum()),
        "nats_per_token_shuffled": float(another.sum() / tokens.sum()),
        "nats_per_token_mean": float(without.sum() / tokens.sum()),
        "gain": float((another - true).sum() / tokens.sum()),
        "gain_95_interval": list(bootstrap_interval(another - true, tokens)),
        "gain_over_mean": float((without - true).sum() / tokens.sum()),
        "gain_over_mean_95_interval": list(bootstrap_interval(without - true, tokens)),
    }


def derangement(size: int, seed: int) -> torch.Tensor:
    """Return 0 ... size-1 in a random order that leaves no element in its place, int64 [size]: one long cycle."""
    cycle = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    order = torch.empty_like(cycle)
    order[cycle] = cycle.roll(1)
    return order


def _unit_vectors(cache: EmbeddingCache, names: Sequence[str]) -> Iterator[torch.Tensor]:
    """Yield the images' unit vectors [n, D], some images at a time; of patches, those of the class token."""
    for start in range(0, len(names), AT_A_TIME):
        rows = cache.rows(names[start : start + AT_A_TIME])  # [n, D] or [n, S, D]
        yield F.normalize(rows if rows.ndim == 2 else rows[:, 0], dim=1)


@torch.no_grad()
def _nats_by_image(
    captioner: Captioner, batches: CaptionBatches, order: torch.Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's negative log-likelihood and number of reference tokens, float64 [N] each.

    order: int64 [N], whose embedding each image gets; None gives all of them the mean one.
    """
    nats = torch.zeros(len(batches.image_names), dtype=torch.float64)
    tokens = torch.zeros_like(nats)
    loss, mean_embedding = CaptionLoss(captioner).eval(), captioner.mean_embedding.cpu()
    for rows in batches.in_order():
        images = batches.image_of[rows]
        if order is None:
            embeddings = mean_embedding.expand(len(images), *mean_embedding.shape)
        else:
            embeddings = batches.embeddings[order[images]]
        packed = loss.pack(batches.rows(rows)._replace(embeddings=embeddings))
        image_of = images[packed.caption_of.flatten()[packed.sources].cpu()]  # int64, the image of each token
        nats.index_add_(0, image_of, loss.nats(packed).double().cpu())
        tokens.index_add_(0, image_of, torch.ones(len(image_of), dtype=torch.float64))
    return nats.numpy(), tokens.numpy()
