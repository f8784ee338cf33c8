"""Confidence against truth, on cases with a known answer."""

import numpy as np
import pytest
import torch

from helpers.analysis.calibration import calibration_error, reliability, scene_confidence, words_in_references
from helpers.analysis.introspection import END, word_confidence
from helpers.data.scene_captions import wordings


def test_a_calibrated_guesser_lies_on_the_diagonal_and_a_boaster_below_it():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=20_000)
    right = rng.uniform(size=20_000) < confidence
    pictures = np.arange(20_000) // 4
    curve = reliability(confidence, right, pictures=pictures)
    assert curve.number.sum() == 20_000
    assert len(curve) == 10
    assert (curve.confidence - curve.right).abs().max() < 0.03
    assert ((curve.low < curve.right) & (curve.right < curve.high)).all()
    assert calibration_error(curve) < 0.02
    boast = reliability(np.sqrt(confidence), right, pictures=pictures)
    assert calibration_error(boast) == pytest.approx(1 / 6, abs=0.01)  # the mean of sqrt(p) - p


def test_empty_bins_are_left_out_and_a_confidence_of_one_counts():
    curve = reliability([0.05, 1.0, 1.0], [False, True, False], pictures=["a", "a", "b"], bins=10)
    assert curve.number.tolist() == [1, 2]
    assert curve.right.tolist() == [0, 0.5]


def test_statements_about_one_picture_are_resampled_together():
    """A hundred copies of the same statement say no more than one: the interval does not shrink."""
    right = np.array([True, False] * 10)
    once, often = (
        reliability(np.full(len(each), 0.5), each, pictures=np.arange(len(each)) % 20)
        for each in (right, np.tile(right, 100))
    )
    assert often.high[0] - often.low[0] == pytest.approx(once.high[0] - once.low[0])


def test_the_confidence_of_a_scene_is_the_sum_over_its_wordings(writer, data, cache):
    names = data.image_names()[:2]
    scenes, embeddings = [data.facts[name] for name in names], cache.rows(names)
    expected = []
    for row, scene in enumerate(scenes):
        captions = [f"{way[0].upper()}{way[1:]}." for way in wordings(scene)]
        spoken = word_confidence(writer, embeddings[[row] * len(captions)], captions)
        expected.append(sum(np.prod([p for _, p in words]) for words in spoken))
    found = scene_confidence(writer, embeddings, scenes)
    assert found == pytest.approx(expected, rel=1e-3)
    assert (found > 0).all()
    assert (found <= 1).all()
    assert torch.tensor(found).ndim == 1


def test_words_are_right_if_a_reference_has_them_and_common_ones_are_left_out():
    spoken = [[("a", 0.9), ("Dog.", 0.5), (END, 0.9)], [("a", 0.8), ("cat", 0.3)]]
    table = words_in_references(spoken, [["A dog runs", "A puppy"], ["a horse"], ["A car"]])
    assert table.to_numpy().tolist() == [[0, "dog", 0.5, True], [1, "cat", 0.3, False]]
