"""A captioner's memory of its training pictures: is an embedding like those that it was trained on?"""

import torch
from torch import nn

DIRECTIONS = 64  # main directions of the training embeddings that are kept
PER_DIRECTION = 10  # training images for each of them, at least
FAMILIAR = 0.98  # share of the training images that count as familiar
HELD_OUT = 5  # one training image of so many sets the limit, and takes no part in the rest


class Familiarity(nn.Module):
    """A Gaussian over standardised embeddings: a variance along each main direction, and one beside all of them.

    Strangeness is the mean squared deviation in units of these variances (Mahalanobis' distance, squared), divided by
    the one that FAMILIAR of the held-out training images stay below: above 1 a picture is unlike them.
    """

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("directions", torch.zeros(DIRECTIONS, width))  # [K, D], rows of length 1 or 0
        self.register_buffer("variances", torch.ones(DIRECTIONS))  # [K]
        self.register_buffer("rest", torch.ones(()))  # variance of each dimension beside the main directions
        self.register_buffer("limit", torch.zeros(()))  # 0: not known yet

    def know(self, vectors: torch.Tensor) -> None:
        """Count these standardised vectors [N, D] as familiar, the first ones or more of them."""
        (self.admit if self.limit > 0 else self.learn)(vectors)

    @torch.no_grad()
    def learn(self, vectors: torch.Tensor) -> None:
        """Learn the distribution of standardised vectors, [N, D]."""
        held_out = vectors[::HELD_OUT]
        if len(held_out) >= PER_DIRECTION:  # else all images are needed
            vectors = vectors[torch.arange(len(vectors)) % HELD_OUT != 0]
        vectors = vectors.double()
        number, width = vectors.shape
        kept = min(DIRECTIONS, number // PER_DIRECTION, width - 1)  # few images say little about many directions
        variances, directions = torch.linalg.eigh(vectors.T @ vectors / number)  # ascending
        total = variances.clamp_min(0).sum()
        self.directions.zero_()
        self.variances.fill_(1)
        if kept:
            self.directions[:kept] = directions[:, -kept:].T.to(self.directions)
            self.variances[:kept] = variances[-kept:].clamp_min(1e-6).to(self.variances)
            total = total - variances[-kept:].sum()
        self.rest.fill_((total / (width - kept)).clamp_min(1e-6).item())
        self.limit.zero_()
        self.admit(held_out)

    @torch.no_grad()
    def admit(self, vectors: torch.Tensor) -> None:
        """Raise the limit, if need be, so that FAMILIAR of these standardised vectors [N, D] count as familiar."""
        self.limit.copy_(torch.maximum(self.limit, self.deviation(vectors).quantile(FAMILIAR)))

    @torch.no_grad()
    def forward(self, vectors: torch.Tensor) -> torch.Tensor | None:
        """Return the strangeness of standardised vectors [B, D], float32 [B]; None before anything is known."""
        return (self.deviation(vectors) / self.limit).float() if self.limit > 0 else None

    def deviation(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the mean squared deviation of standardised vectors [B, D] in units of the variances, [B]."""
        along = vectors @ self.directions.T  # [B, K]
        beside = (vectors.square().sum(dim=1) - along.square().sum(dim=1)).clamp_min(0)
        return ((along.square() / self.variances).sum(dim=1) + beside / self.rest) / vectors.shape[1]
