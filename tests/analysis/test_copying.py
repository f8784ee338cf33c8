"""The nearest training caption, checked against a plain Levenshtein distance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.analysis.copying import closest_captions, word_edits, words
from helpers.errors import UserError


def levenshtein(one, other):
    if not one or not other:
        return len(one) + len(other)
    kept = levenshtein(one[1:], other[1:]) + (one[0] != other[0])
    return min(kept, 1 + levenshtein(one[1:], other), 1 + levenshtein(one, other[1:]))


sentences = st.lists(st.integers(0, 3), max_size=5)


@settings(deadline=None)
@given(sentences, st.lists(sentences, min_size=1, max_size=5))
def test_edits_are_levenshteins(caption, others):
    padded = np.full((5, len(others)), -1)
    for place, other in enumerate(others):
        padded[: len(other), place] = other
    edits = word_edits(caption, padded, np.array([len(other) for other in others]))
    assert edits.tolist() == [levenshtein(tuple(caption), tuple(other)) for other in others]


def test_nothing_is_near_without_training_captions():
    with pytest.raises(UserError, match="no training captions to compare with: give at least one"):
        closest_captions(["A man runs."], [])


def test_a_copy_is_found_whatever_its_case_and_punctuation():
    training = ["A man runs.", "Two dogs play in the snow.", "a man RUNS", "A man sleeps."]
    found = closest_captions(["two dogs, play in the snow", "A man runs", "A dog runs.", "A man runs"], training)
    assert found.columns.tolist() == ["caption", "nearest", "edits"]
    assert found.caption.tolist() == ["two dogs, play in the snow", "A man runs", "A dog runs.", "A man runs"]
    assert found.nearest.tolist() == [training[1], training[0], training[0], training[0]]
    assert found.edits.tolist() == [0, 0, 1, 0]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(max_size=20), max_size=4), st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_any_text_has_a_neighbour(written, training):
    found = closest_captions(written, training)
    assert list(found.caption) == written
    assert set(found.nearest) <= set(training)
    for caption, nearest, edits in found.itertuples(index=False):
        assert edits <= len(words(caption)) + len(words(nearest))
        assert (edits == 0) == (words(caption) == words(nearest))
        assert (edits == 0) == (words(caption) in [words(text) for text in training])
