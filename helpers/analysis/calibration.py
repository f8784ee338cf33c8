"""Calibration: of all captions that a captioner holds for right with probability p, is the share p right?"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from ..data.scene_captions import Scene, wordings
from ..models.writer import CaptionWriter
from .copying import words
from .introspection import token_log_probabilities

RESAMPLES = 1000  # of the pictures, for the intervals


def scene_confidence(writer: CaptionWriter, embeddings: torch.Tensor, scenes: Sequence[Scene]) -> np.ndarray:
    """Return the captioner's probability that a picture shows a scene: that of all its wordings together, float [N].

    embeddings: [N, D] or [N, S, D], one for each of the N scenes. One caption's own probability would be small even if
    the captioner were certain, because the same scene can be said in up to 32 ways.
    """
    ways = [sorted(wordings(scene)) for scene in scenes]
    captions = [f"{way[0].upper()}{way[1:]}." for each in ways for way in each]
    sizes = torch.tensor([len(each) for each in ways])
    rows = token_log_probabilities(writer, embeddings.repeat_interleave(sizes, dim=0), captions)
    probabilities = torch.stack([nats.sum() for _, nats in rows]).double().exp()
    return np.array([part.sum().item() for part in probabilities.split(sizes.tolist())])


def words_in_references(
    confidence: Sequence[Sequence[tuple[str, float]]], references: Sequence[Sequence[str]]
) -> pd.DataFrame:
    """Return each word of N captions with its probability and whether any reference of the same picture has it.

    confidence: for each caption its words and their probabilities, as `word_confidence` returns them. references: of
    each picture its captions. DataFrame[picture, word, confidence, right]; picture counts from 0. Words that more than
    half of the pictures have in a reference, such as "a", are left out: whether they are there says nothing.
    """
    known = [{word for text in each for word in words(text)} for each in references]
    having = Counter(word for each in known for word in each)
    common = {word for word, pictures in having.items() if pictures > len(known) / 2}
    return pd.DataFrame(
        [(picture, word, probability, word in known[picture])
         for picture, spoken in enumerate(confidence) for shown, probability in spoken
         for word in words(shown) if word not in common],
        columns=["picture", "word", "confidence", "right"],
    )  # fmt: skip


def reliability(
    confidence: Sequence[float], right: Sequence[bool], *, pictures: Sequence[str], bins: int = 10
) -> pd.DataFrame:
    """Return a reliability curve: for each bin of confidence, how often what was said with it is right.

    confidence, right, pictures: of N statements the probability that the captioner gave it (0 to 1), whether it is
    right, and the picture it is about. DataFrame with one row per bin of equal width that is not empty: number (of
    statements), confidence (its mean), right (the share), low and high (its 95 % interval, by the bootstrap over
    pictures, because statements about one picture are not independent).
    """
    confidence = np.asarray(confidence, dtype=float)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    picture, known = pd.factorize(np.asarray(pictures))
    sums = np.zeros((len(known), bins, 3))  # of each picture and bin: number, confidence, right
    np.add.at(sums, (picture, place), np.column_stack([np.ones(len(place)), confidence, np.asarray(right, float)]))
    total = sums.sum(axis=0)  # [bins, 3]
    draws = np.random.default_rng(0).multinomial(len(known), np.full(len(known), 1 / len(known)), size=RESAMPLES)
    drawn = np.tensordot(draws, sums, axes=1)  # [RESAMPLES, bins, 3]
    kept = total[:, 0] > 0
    with np.errstate(invalid="ignore"):  # a resample may have no statement in a bin
        low, high = np.nanpercentile((drawn[..., 2] / drawn[..., 0])[:, kept], (2.5, 97.5), axis=0)
    number, summed, hits = total[kept].T
    return pd.DataFrame(
        {"number": number.astype(int), "confidence": summed / number, "right": hits / number, "low": low, "high": high}
    )


def calibration_error(curve: pd.DataFrame) -> float:
    """Return the mean distance between confidence and share right over the bins of `reliability`, weighted by number.

    It is known as the expected calibration error (Naeini et al. 2015); 0 is perfect.
    """
    return float(np.average((curve.confidence - curve.right).abs(), weights=curve.number))
