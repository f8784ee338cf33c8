"""What the picture tells the captioner: how much better it predicts the references, in nats a token."""

from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from .batches import CaptionBatches
from .captioner import Captioner
from .intervals import bootstrap_interval
from .likelihood import Likelihood

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
