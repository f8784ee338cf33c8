"""A captioner without a language model: the most typical caption of the nearest training photos (Devlin et al. 2015).

Of the captions of the NEIGHBOURS training photos whose embeddings are nearest, the one is taken that is most like the
others by CIDEr's measure: the cosine of counted n-grams, weighted by how rare they are, mean over n = 1 to 4.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

NEIGHBOURS = 40
ORDERS = 4


class Consensus:
    """The training photos' captions and embeddings, ready to be searched."""

    def __init__(self, embeddings: torch.Tensor, captions: Sequence[Sequence[str]]):
        """Take N training photos: embeddings float32 [N, D], and the captions of each as words with spaces between."""
        self.mean, self.std = embeddings.mean(dim=0), embeddings.std(dim=0).clamp_min(1e-4)
        self.known = self._unit(embeddings)
        self.captions = captions
        self.grams = [[_grams(caption) for caption in several] for several in captions]
        self.seen = Counter()  # in how many photos' captions an n-gram occurs
        for several in self.grams:
            self.seen.update({gram for orders in several for counts in orders for gram in counts})

    def nearest(self, embeddings: torch.Tensor) -> list[str]:
        """Return the first caption of the nearest training photo, for each of M embeddings [M, D]."""
        places = (self._unit(embeddings) @ self.known.T).argmax(dim=1)
        return [self.captions[place][0] for place in places.tolist()]

    def write(self, embeddings: torch.Tensor) -> list[str]:
        """Return the consensus caption for each of M embeddings [M, D]."""
        places = (self._unit(embeddings) @ self.known.T).topk(min(NEIGHBOURS, len(self.known)), dim=1).indices
        written = []
        for row in tqdm(places.tolist(), desc="consensus", unit="photo"):
            texts = [text for place in row for text in self.captions[place]]
            grams = [orders for place in row for orders in self.grams[place]]
            likeness = sum(vectors @ vectors.T for vectors in (self._vectors(grams, n) for n in range(ORDERS)))
            written.append(texts[int(likeness.mean(axis=1).argmax())])
        return written

    def _unit(self, embeddings: torch.Tensor) -> torch.Tensor:
        return F.normalize((embeddings - self.mean) / self.std, dim=1)

    def _vectors(self, grams: list[list[Counter]], n: int) -> np.ndarray:
        """Return unit vectors of the captions' n-grams, float32 [captions, different n-grams]."""
        column: dict[tuple[str, ...], int] = {}
        rows = [
            [(column.setdefault(gram, len(column)), count * math.log(len(self.captions) / self.seen[gram]))
             for gram, count in orders[n].items()]
            for orders in grams
        ]  # fmt: skip
        vectors = np.zeros((len(rows), max(1, len(column))), np.float32)
        for number, row in enumerate(rows):
            for place, weight in row:
                vectors[number, place] = weight
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _grams(caption: str) -> list[Counter]:
    words = caption.split()
    return [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for n in range(1, ORDERS + 1)]
