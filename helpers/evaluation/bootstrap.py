"""The uncertainty of a score, by the bootstrap: the same captions are scored on many resamples of their images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000  # resamples per score
AT_A_TIME = 200  # resamples whose choices are in memory together


@dataclass(frozen=True)
class Score:
    """A score over N images, and the same score over each of RESAMPLES resamples of them.

    value: the score. resampled: float [RESAMPLES]. per_image: float [N], NaN for an image without a value.
    The resamples depend on N alone, so two scores of the same images can be subtracted resample by resample: the
    paired bootstrap.
    """

    value: float
    resampled: np.ndarray
    per_image: np.ndarray

    @classmethod
    def of(cls, statistics: np.ndarray, score_of: Callable[[np.ndarray], np.ndarray], per_image: np.ndarray) -> "Score":
        """Return a score that is a function of sums over images, as BLEU is.

        statistics: float [N, K], K numbers per image. score_of: turns R rows of their sums, [R, K], into scores [R].
        per_image: float [N], kept as it is.
        """
        values = score_of(np.vstack([statistics.sum(axis=0), resampled_sums(statistics)]))
        return cls(float(values[0]), values[1:], per_image)

    @classmethod
    def mean(cls, per_image: np.ndarray) -> "Score":
        """Return the mean of float [N] over the images; one whose value is NaN does not count."""
        there = ~np.isnan(per_image)
        statistics = np.column_stack([np.where(there, per_image, 0), there])
        return cls.of(statistics, _mean_of_sums, per_image)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval over images, in the score's own unit."""
        return interval(self.resampled)

    def minus(self, other: "Score") -> dict[str, Any]:
        """Return the difference to another captioner's score of the same images, and a verdict.

        Keys: difference, 95_interval ([low, high]) and verdict: "no difference shown" if the interval holds 0, else
        "higher" or "lower".
        """
        low, high = interval(self.resampled - other.resampled)
        verdict = "no difference shown" if low <= 0 <= high else "higher" if low > 0 else "lower"
        return {"difference": self.value - other.value, "95_interval": [low, high], "verdict": verdict}


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of resampled scores [R]: their quantiles at 2.5 % and 97.5 %, NaN left out."""
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def resampled_sums(statistics: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the sums [RESAMPLES, K] of statistics [N, K] over N images drawn with replacement, per resample."""
    generator, number = np.random.default_rng(seed), len(statistics)
    sums = []
    for _ in range(0, RESAMPLES, AT_A_TIME):
        chosen = generator.integers(number, size=(AT_A_TIME, number))
        times = np.stack([np.bincount(row, minlength=number) for row in chosen])  # how often each image, [R, N]
        sums.append(times @ statistics)
    return np.concatenate(sums)


def bootstrap_interval(differences: np.ndarray, weights: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of sum(differences) / sum(weights) over resampled images; both are float [N]."""
    return interval(_mean_of_sums(resampled_sums(np.column_stack([differences, weights]), seed)))


def _mean_of_sums(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # 0 / 0 in a resample whose images all lack a value
        return sums[:, 0] / sums[:, 1]
