"""Are captions bland? How long they are, how many words they use, and how often they repeat what was said before."""

from collections.abc import Iterable, Sequence

import numpy as np

from .intervals import Score


def variety(captions: Sequence[str]) -> dict[str, float]:
    """Of tokenised captions: how many differ, how many words there are in all, and distinct-1 and distinct-2.

    distinct-n is the number of different n-grams over the number of all (Li et al. 2016). It falls with the number of
    captions, so compare equal numbers. These have no interval: a resample with repeats holds fewer different things
    than the captions themselves.
    """
    words = [caption.split() for caption in captions]
    counts: dict[str, float] = {
        "distinct_captions": len(set(captions)),
        "vocabulary": len({w for c in words for w in c}),
    }
    for n in (1, 2):
        grams = [tuple(caption[i : i + n]) for caption in words for i in range(len(caption) - n + 1)]
        counts[f"distinct_{n}"] = len(set(grams)) / len(grams) if grams else 0.0
    return counts


def words(captions: Sequence[str]) -> Score:
    """The mean number of words of tokenised captions."""
    return Score.mean(np.array([len(caption.split()) for caption in captions], dtype=float))


def copied(captions: Sequence[str], training: Iterable[str]) -> Score:
    """The share of tokenised captions that are, word for word, one of the tokenised training captions."""
    known = set(training)
    return Score.mean(np.array([caption in known for caption in captions], dtype=float))
