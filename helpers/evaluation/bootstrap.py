"""How sure is a score? The bootstrap: score the same captions on many resamples of the images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
AT_A_TIME = 200  # resamples whose choices are held in memory


@dataclass(frozen=True)
class Score:
    """A score over N images, and the same score over each of RESAMPLES resamples of them.

    resampled: float [RESAMPLES]; per_image: float [N]. The resamples depend on N alone, so that two scores of the same
    images can be subtracted resample by resample: the paired bootstrap.
    """

    value: float
    resampled: np.ndarray
    per_image: np.ndarray

    @classmethod
    def of(cls, statistics: np.ndarray, of_sums: Callable[[np.ndarray], np.ndarray], per_image: np.ndarray) -> "Score":
        """A score that is a function of sums over images, as BLEU is: statistics [N, K], of_sums [R, K] -> [R]."""
        values = of_sums(np.vstack([statistics.sum(axis=0), resampled_sums(statistics)]))
        return cls(float(values[0]), values[1:], per_image)

    @classmethod
    def mean(cls, per_image: np.ndarray) -> "Score":
        """The mean over images; an image whose value is NaN has none."""
        there = ~np.isnan(per_image)
        statistics = np.column_stack([np.where(there, per_image, 0), there])
        return cls.of(statistics, _mean_of_sums, per_image)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval: from the 2.5th to the 97.5th of a hundred resamples, in order of their scores."""
        return interval(self.resampled)

    def minus(self, other: "Score") -> dict[str, Any]:
        """The difference to the score of other captions of the same images, and whether it is one or a tie."""
        low, high = interval(self.resampled - other.resampled)
        verdict = "tie" if low <= 0 <= high else "higher" if low > 0 else "lower"
        return {"difference": self.value - other.value, "95_interval": [low, high], "verdict": verdict}


def interval(resampled: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def resampled_sums(statistics: np.ndarray, seed: int = 0) -> np.ndarray:
    """The sums [RESAMPLES, K] of statistics [N, K] over N images drawn with replacement, RESAMPLES times."""
    generator, number = np.random.default_rng(seed), len(statistics)
    sums = []
    for _ in range(0, RESAMPLES, AT_A_TIME):
        chosen = generator.integers(number, size=(AT_A_TIME, number))
        times = np.stack([np.bincount(row, minlength=number) for row in chosen])  # how often each image, [R, N]
        sums.append(times @ statistics)
    return np.concatenate(sums)


def bootstrap_interval(differences: np.ndarray, weights: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of sum(differences) / sum(weights) over resampled images; both float [N]."""
    return interval(_mean_of_sums(resampled_sums(np.column_stack([differences, weights]), seed)))


def _mean_of_sums(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a resample of none but images without a value
        return sums[:, 0] / sums[:, 1]
