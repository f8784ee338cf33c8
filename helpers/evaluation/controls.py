"""Controls: what the same decoding gives without the picture, and what copying the nearest training caption gives."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from tqdm import tqdm

from ..data.batches import CaptionBatches
from ..data.embedding_cache import EmbeddingCache, Rows
from ..errors import UserError
from ..models.captioner import Captioner
from ..training.loss import Likelihood
from .bootstrap import bootstrap_interval

CONTROLS = {  # what each is, in the words of metrics.json
    "shuffled": "shuffled",
    "mean": "mean",
    "nearest": "none: a caption of the nearest training picture",
}
AT_A_TIME = 256  # pictures that are compared with all training pictures


def shuffled(cache: EmbeddingCache, names: Sequence[str]) -> torch.Tensor | Rows:
    """For each of the images `names` the embedding of another one of them."""
    return cache.array(names[number] for number in derangement(len(names), seed=0).tolist())


def mean(captioner: Captioner, images: int) -> torch.Tensor:
    """For each of so many images the mean embedding of the training images: no picture in particular."""
    return captioner.mean_embedding.cpu().expand(images, *captioner.embedding_shape)


def nearest_images(cache: EmbeddingCache, names: Sequence[str], among: Sequence[str]) -> list[str]:
    """For each of the images `names` the one `among` these whose embedding has the highest cosine with its own."""
    known = torch.cat(list(_vectors(cache, among)))  # [M, D]
    return [among[place] for part in _vectors(cache, names) for place in (part @ known.T).argmax(dim=1).tolist()]


def _vectors(cache: EmbeddingCache, names: Sequence[str]) -> Iterator[torch.Tensor]:
    """Unit vectors [n, D] of images, some at a time; of patches, that of the class token before them."""
    for start in range(0, len(names), AT_A_TIME):
        rows = cache.rows(names[start : start + AT_A_TIME])  # [n, D] or [n, S, D]
        yield F.normalize(rows if rows.ndim == 2 else rows[:, 0], dim=1)


def nearest_captions(cache: EmbeddingCache, names: Sequence[str], training: pd.DataFrame) -> list[str]:
    """For each image the first caption in `training` (image_name, caption) of the training picture nearest to it.

    Raises UserError where no training picture has an embedding, and where one of them is among `names`, for it would
    find its own caption.
    """
    known = set(cache.image_names)
    captions = training[training.image_name.isin(known)].drop_duplicates("image_name").set_index("image_name").caption
    if captions.empty:
        raise UserError("no training picture has an embedding, so none is nearest: embed those of the train split too")
    if leaked := sorted(set(names) & set(captions.index)):
        raise UserError(f"{len(leaked)} of the pictures are training pictures, such as {leaked[0]}: they are their own "
                        "nearest; evaluate held-out ones")  # fmt: skip
    return list(captions[nearest_images(cache, names, list(captions.index))])


DERANGEMENTS = 5  # how often the embeddings are shuffled for the control


def picture_information(captioner: Captioner, batches: CaptionBatches) -> dict[str, Any]:
    """How much better the references are predicted with their own picture than with another one or with none.

    Each value is a mean negative log-likelihood in nats a reference token: with the true embedding, with the shuffled
    ones (the mean of five derangements) and with the mean embedding of the training images. `gain` is shuffled minus
    true, `gain_over_mean` mean minus true, each with its 95 % interval from a paired bootstrap over images.
    """
    size = len(batches.image_names)
    variants = [torch.arange(size), None, *(derangement(size, seed) for seed in range(DERANGEMENTS))]
    sums = []  # of each variant, float64 [N]: nats summed over each image's reference tokens
    for order in tqdm(variants, desc="likelihood", unit="variant"):
        nats, tokens = _nats_by_image(captioner, batches, order)
        sums.append(nats)
    true, mean, shuffled = sums[0], sums[1], np.mean(sums[2:], axis=0)
    return {
        "nats_per_token_true": float(true.sum() / tokens.sum()),
        "nats_per_token_shuffled": float(shuffled.sum() / tokens.sum()),
        "nats_per_token_mean": float(mean.sum() / tokens.sum()),
        "gain": float((shuffled - true).sum() / tokens.sum()),
        "gain_95_interval": list(bootstrap_interval(shuffled - true, tokens)),
        "gain_over_mean": float((mean - true).sum() / tokens.sum()),
        "gain_over_mean_95_interval": list(bootstrap_interval(mean - true, tokens)),
    }


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
