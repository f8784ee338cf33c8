"""Candidates are the captions that generate returns, with the scores of teacher forcing."""

import math

import pytest
import torch

from helpers.models.decoding import Decoding
from helpers.models.writer import Candidate


def forced(writer, embedding, ids) -> float:
    """Return the mean log-probability of a caption's tokens, [T] with its end of text, from one forward pass."""
    with torch.no_grad():
        logits = writer.captioner(input_ids=ids[None], embeddings=embedding).logits[0]
    return logits.log_softmax(dim=-1)[range(len(ids)), ids].mean().item()


def ids_of(writer, embedding, decoding) -> list:
    """Return the token ids that generate returns, each cut after its first end of text."""
    end = writer.captioner.config.text_config.eos_token_id
    choices = decoding.for_generate(writer.captioner.longest_caption)
    torch.manual_seed(decoding.seed)
    found = writer.captioner.generate(embedding, **choices, num_return_sequences=decoding.beams)
    return [row[: (row == end).int().argmax() + 1] if (row == end).any() else row for row in found]


@pytest.mark.parametrize(
    "decoding",
    [Decoding(), Decoding(beams=4), Decoding(temperature=1.3, top_p=0.9, seed=3), Decoding(beams=3, max_tokens=5),
     Decoding(max_tokens=2)],
    ids=["greedy", "beams", "sampling", "cut beams", "cut"],
)  # fmt: skip
def test_the_scores_are_those_of_one_forward_pass(writer, cache, data, decoding):
    for name in data.image_names()[:3]:
        embedding = cache.rows([name])
        found = writer.candidates(embedding, decoding)
        assert len(found) == decoding.beams
        assert found[0].caption == writer.write(embedding, decoding)[0]
        for candidate, ids in zip(found, ids_of(writer, embedding, decoding), strict=True):
            assert candidate.caption == writer.tokenizer.decode(ids, skip_special_tokens=True).strip()
            assert candidate.log_probability == pytest.approx(forced(writer, embedding, ids), abs=1e-4)


def test_beams_come_likeliest_first(writer, cache, data):
    scores = [each.log_probability for each in writer.candidates(cache.rows(data.image_names()[:1]), Decoding(beams=6))]
    assert scores == sorted(scores, reverse=True)


def test_sampling_leaves_the_random_state_alone(writer, cache, data):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    writer.candidates(cache.rows(data.image_names()[:1]), Decoding(temperature=1.0))
    assert torch.rand(1) == expected


@pytest.mark.parametrize("probability", [1.0, 0.5, 0.0])
def test_a_probability_is_that_of_the_logarithm(probability):
    candidate = Candidate("A dog.", math.log(probability) if probability else -math.inf)
    assert candidate.probability == pytest.approx(probability)
