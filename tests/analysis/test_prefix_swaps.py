"""Captions after one prefix vector was replaced, and the facts that follow it."""

import pytest
import torch

from helpers.analysis.prefix_swaps import captions_after_swap, facts_after_swap
from helpers.data.scene_captions import Scene

SCENES = [Scene("gray", "red", "circle", 2), Scene("pink", "blue", "circle", 2)]
WRITTEN = ["Two red circles on plain gray.", "Two blue circles on plain pink."]


def test_a_swap_of_every_vector_writes_the_next_pictures_captions(writer, data, cache, monkeypatch):
    embeddings = cache.rows(data.image_names()[:5])
    written, seen = writer.write(embeddings), []
    generate = writer.captioner.gpt2.generate
    monkeypatch.setattr(
        writer.captioner.gpt2, "generate", lambda **given: seen.append(given["inputs_embeds"]) or generate(**given)
    )
    captions_after_swap(writer, embeddings, 2)
    prefix = writer.captioner.prefix(embeddings)
    (changed,) = seen
    torch.testing.assert_close(changed[:, 2], prefix[:, 2].roll(-1, dims=0))
    kept = [0, 1, 3]
    torch.testing.assert_close(changed[:, kept], prefix[:, kept])
    assert writer.write(embeddings) == written  # the captioner is as it was


def test_facts_that_follow_the_vector_are_counted_among_those_that_could():
    after = ["Two blue circles on plain gray.", "Two blue circles on plain gray."]
    table = facts_after_swap([after, WRITTEN, ["nonsense", "nonsense"]], WRITTEN, SCENES)
    assert list(table.index) == [1, 2, 3]
    assert table.color[1] == 0.5  # the first picture's red became the next one's blue
    assert table.background[1] == 0.5  # the second's pink became gray
    assert table.changed.tolist() == [1, 0, 1]
    assert table.unreadable.tolist() == [0, 0, 1]
    assert table.color[2] == table.background[2] == 0
    assert table["shape"].isna().all()  # both pictures have circles: nothing could follow


def test_a_fact_that_was_wrong_before_the_swap_does_not_count():
    wrong = ["Two green circles on plain gray.", WRITTEN[1]]
    table = facts_after_swap([["Two blue circles on plain gray.", WRITTEN[1]]], wrong, SCENES)
    assert table.color[1] == pytest.approx(0)
