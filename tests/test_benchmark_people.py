"""The benchmark of people counts beside the scores: what the references decide, and what neutral words cost."""

import pytest

from benchmarks.people import cost, decided
from helpers.evaluation.people import GENDER


def test_most_references_decide_more_photos_than_all():
    references = [
        ["a woman", "a lady", "a player"],
        ["a man", "a guy", "a boy"],
        ["a man", "a dog", "a cat"],
        ["a dog"],
    ]
    assert decided(references, GENDER) == {"by most": 2, "by all": 1}


def test_neutral_words_cost_what_the_references_say_otherwise():
    pytest.importorskip("pycocoevalcap")
    written = ["a man rides a red bike", "a dog runs", "a woman in her hat", "two boys play"]
    found = cost(written, [[text, "something else"] for text in written])
    assert found["captions_reworded"] == 3 / 4
    assert found["neutral"]["minus_as_written"]["verdict"] == "lower"
    assert found["neutral_by_neutral_references"]["cider"] > found["neutral"]["cider"]
