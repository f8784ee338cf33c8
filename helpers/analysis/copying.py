"""Is a caption new or copied? The training caption nearest to it, in words that must be changed."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..errors import UserError


def closest_captions(written: Sequence[str], training: Sequence[str]) -> pd.DataFrame:
    """Return the nearest training caption of each of N written captions: DataFrame[caption, nearest, edits], N rows.

    edits: the number of words to change, add or leave out (Levenshtein's distance over words); 0 is a copy. Case and
    punctuation do not count. The first of equally near captions is taken. Raises UserError if `training` is empty.
    """
    if not len(training):
        raise UserError("there are no training captions to compare with: give at least one")
    known = pd.Series(training, dtype=object).groupby([" ".join(words(text)) for text in training], sort=False).first()
    number: dict[str, int] = {}  # by word
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
    """Return the words of a text in lower case, without punctuation."""
    return re.findall(r"[\w']+", text.lower())


def word_edits(caption: Sequence[int], others: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return Levenshtein's distance from one caption to each of M others, in words, int64 [M].

    caption: numbers that stand for words. others: int64 [T, M], one caption per column. lengths: int64 [M], the number
    of words in each column; what is below them is padding.
    """
    size, number = others.shape
    # [T+1, M]: from the words so far to the first 0 ... T words of each other caption
    before = np.repeat(np.arange(size + 1)[:, None], number, axis=1)
    for word in caption:
        now = before + 1  # the word is left out,
        np.minimum(now[1:], before[:-1] + (others != word), out=now[1:])  # or it is kept or changed,
        for place in range(size):  # or words are added behind it
            np.minimum(now[place + 1], now[place] + 1, out=now[place + 1])
        before = now
    return before[lengths, np.arange(number)]
