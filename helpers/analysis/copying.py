"""Is a caption new or copied? The training caption nearest to it, in words that would have to be changed."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm


def closest_captions(written: Sequence[str], training: Sequence[str]) -> pd.DataFrame:
    """For each written caption the nearest training caption: columns caption, nearest, edits.

    edits: how many words must be changed, put in or left out (Levenshtein's distance over words); 0 is a copy word for
    word. Case and punctuation do not count. Of equally near ones the first is taken. `training` needs at least one.
    """
    known = pd.Series(training, dtype=object).groupby([" ".join(words(text)) for text in training], sort=False).first()
    number: dict[str, int] = {}  # of each word
    rows = [[number.setdefault(word, len(number)) for word in text.split()] for text in known.index]
    lengths = np.array([len(row) for row in rows])
    padded = np.full((max(lengths.max(), 1), len(rows)), -1)  # [T, M]
    for place, row in enumerate(rows):
        padded[: len(row), place] = row
    found = {}
    for caption in tqdm(list(dict.fromkeys(written)), desc="nearest captions", unit="caption"):
        edits = word_edits([number.get(word, -2) for word in words(caption)], padded, lengths)
        nearest = int(edits.argmin())
        found[caption] = (caption, known.iloc[nearest], int(edits[nearest]))
    return pd.DataFrame([found[caption] for caption in written], columns=["caption", "nearest", "edits"])


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"[\w']+", text.lower())


def word_edits(caption: Sequence[int], others: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Levenshtein's distance from a caption of word numbers to each column of `others` [T, M], `lengths` [M] long."""
    size, number = others.shape
    before = np.repeat(np.arange(size + 1)[:, None], number, axis=1)  # [T+1, M]: to each beginning of the others
    for word in caption:
        now = before + 1  # the word is left out
        np.minimum(now[1:], before[:-1] + (others != word), out=now[1:])  # or kept, or changed
        for place in range(size):  # or others are put in behind it
            np.minimum(now[place + 1], now[place] + 1, out=now[place + 1])
        before = now
    return before[lengths, np.arange(number)]
