"""A captioner's memory of its training pictures: is an embedding like those that it was trained on?"""

import torch
from torch import nn

DIRECTIONS = 64  # main directions of the training embeddings that are kept
PER_DIRECTION = 10  # training images for each of them, at least
FAMILIAR = 0.98  # share of the training images that count as familiar
HELD_OUT = 5  # one training image of so many sets the limit, and takes no part in the rest
ENOUGH = HELD_OUT * (PER_DIRECTION - 1) + 1  # images, or too few are held out


class Familiarity(nn.Module):
    """A Gaussian over standardised embeddings: a variance along each main direction, and one beside all of them.

    Strangeness is the mean squared deviation in units of these variances (Mahalanobis' distance, squared), divided by
    the one that FAMILIAR of the held-out training images stay below: above 1 a picture is unlike them.

    A training that goes on with pictures of another kind adds a Gaussian of theirs, and the least strangeness counts:
    to widen the first until it holds both kinds would make it hold what lies between and around them, too.
    """

    def __init__(self, width: int, number: int = 1):
        """Make one for vectors of that width. number: of the Gaussians in it."""
        super().__init__()
        self.register_buffer("directions", torch.zeros(DIRECTIONS, width))  # [K, D], rows of length 1 or 0
        self.register_buffer("variances", torch.ones(DIRECTIONS))  # [K]
        self.register_buffer("rest", torch.ones(()))  # variance of each dimension beside the main directions
        self.register_buffer("limit", torch.zeros(()))  # 0: not known yet
        self.others = nn.ModuleList(Familiarity(width) for _ in range(number - 1))

    def __len__(self) -> int:
        return 1 + len(self.others)

    def know(self, vectors: torch.Tensor) -> bool:
        """Count these standardised vectors [N, D] as familiar, the first ones or more of them.

        Returns whether they are: others than the first stay strange if there are fewer than ENOUGH.
        """
        if not self.limit > 0:
            self.learn(vectors)
        elif (self(vectors) > 1).float().mean() > 2 * (1 - FAMILIAR):  # twice what is usual may be chance
            if len(vectors) < ENOUGH:
                return False
            self.others.append(Familiarity(vectors.shape[1]).to(vectors.device))
            self.others[-1].learn(vectors)
        return True

    @torch.no_grad()
    def learn(self, vectors: torch.Tensor) -> None:
        """Learn the distribution of standardised vectors, [N, D]."""
        held_out = vectors[::HELD_OUT]
        if len(vectors) >= ENOUGH:  # else all images are needed
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
        self.limit.copy_(self.deviation(held_out).quantile(FAMILIAR))

    @torch.no_grad()
    def forward(self, vectors: torch.Tensor) -> torch.Tensor | None:
        """Return the strangeness of standardised vectors [B, D], float32 [B]; None before anything is known."""
        return self.strangeness(vectors).float() if self.limit > 0 else None

    def strangeness(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the least strangeness of standardised vectors [B, D] by any of the Gaussians, [B]."""
        return torch.stack([each.deviation(vectors) / each.limit for each in (self, *self.others)]).amin(dim=0)

    def deviation(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the mean squared deviation of standardised vectors [B, D] in units of the variances, [B]."""
        along = vectors @ self.directions.T  # [B, K]
        beside = (vectors.square().sum(dim=1) - along.square().sum(dim=1)).clamp_min(0)
        return ((along.square() / self.variances).sum(dim=1) + beside / self.rest) / vectors.shape[1]
