"""Guidance by the mean embedding, compared with decoding that keeps no cache and shares no work."""

import pytest
import torch
from small_models import END, random_captioner
from torch.nn import functional as F
from transformers import LogitsProcessor

from helpers.models.decoding import Decoding
from helpers.models.processors import Guidance

WAYS = {
    "greedy": {},
    "beams": {"num_beams": 4},
    "sampling": {"do_sample": True, "temperature": 1.3, "top_p": 0.9, "top_k": 0},
    "sampled beams": {"do_sample": True, "num_beams": 3, "top_k": 0},
}


@pytest.fixture(scope="module")
def captioner():
    captioner = random_captioner()
    captioner.prepare_for(torch.randn(50, 32))
    captioner.mapper.output.weight.data.mul_(20)  # so that pictures get different captions
    return captioner


@pytest.fixture(scope="module")
def embeddings():
    return torch.randn(6, 32, generator=torch.Generator().manual_seed(3))


def written(captioner, embeddings, **settings):
    torch.manual_seed(0)
    return captioner.generate(embeddings, max_new_tokens=12, **settings)


def teacher_forced(captioner, embeddings, ids):
    """Return the log-probabilities of each next token, [B, T, V], from `forward`."""
    return captioner(ids, embeddings=embeddings).logits.log_softmax(dim=-1)


class Uncached(LogitsProcessor):
    """The same mathematics, for each row alone and from its first token."""

    def __init__(self, captioner, strength):
        self.captioner, self.strength = captioner, strength

    def __call__(self, input_ids, scores):
        mean = self.captioner.mean_embedding.unsqueeze(0)
        rows = []
        for tokens in input_ids:
            next_token = torch.cat([tokens, tokens.new_zeros(1)]).unsqueeze(0)  # its value does not matter
            rows.append(teacher_forced(self.captioner, mean, next_token)[:, -1])
        mean = torch.cat(rows)
        return (mean + self.strength * (scores.log_softmax(dim=-1) - mean)).log_softmax(dim=-1)


@pytest.mark.parametrize("way", WAYS)
def test_a_guidance_of_1_is_none(captioner, embeddings, way):
    without = written(captioner, embeddings, **WAYS[way])
    assert torch.equal(written(captioner, embeddings, guidance_scale=1.0, **WAYS[way]), without)
    assert not torch.equal(written(captioner, embeddings, guidance_scale=3.0, **WAYS[way]), without)


@pytest.mark.parametrize("strength", [0.5, 1.5, 4.0])
@pytest.mark.parametrize("way", WAYS)
def test_the_cache_changes_nothing_however_beams_are_reordered(captioner, embeddings, way, strength):
    cached = written(captioner, embeddings, guidance_scale=strength, **WAYS[way])
    reference = written(captioner, embeddings, logits_processor=[Uncached(captioner, strength)], **WAYS[way])
    assert torch.equal(cached, reference)
    assert len({tuple(row) for row in cached.tolist()}) > 3


@pytest.mark.parametrize("way", ["greedy", "beams"])
def test_batched_captions_are_the_single_ones(captioner, embeddings, way):
    together = written(captioner, embeddings, guidance_scale=2.0, **WAYS[way])
    for row, embedding in zip(together, embeddings.split(1), strict=True):
        alone = written(captioner, embedding, guidance_scale=2.0, **WAYS[way])[0]
        assert torch.equal(F.pad(alone, (0, len(row) - len(alone)), value=END), row)


def test_greedy_decoding_follows_the_formula(captioner, embeddings):
    ids = written(captioner, embeddings, guidance_scale=2.5)
    true = teacher_forced(captioner, embeddings, ids)
    mean = teacher_forced(captioner, captioner.embedding_mean.expand_as(embeddings), ids)
    ended = (ids == END).cumsum(dim=1) - (ids == END).long() > 0  # tokens after the end are padding
    assert torch.equal((mean + 2.5 * (true - mean)).argmax(dim=-1)[~ended], ids[~ended])


@pytest.mark.parametrize("way", WAYS)
def test_a_captioner_that_ignores_the_picture_is_not_changed(embeddings, way):
    blind = random_captioner()
    blind.mapper.output.weight.data.zero_()
    without = written(blind, embeddings, **WAYS[way])
    for strength in (0.3, 2.0, 10.0):
        assert torch.equal(written(blind, embeddings, guidance_scale=strength, **WAYS[way]), without)


def test_the_picture_that_is_the_mean_is_not_changed(captioner):
    mean = captioner.mean_embedding.unsqueeze(0)
    assert torch.equal(written(captioner, mean, guidance_scale=5.0), written(captioner, mean))


def test_patches_have_a_mean_too():
    captioner = random_captioner(pooling="patches")
    captioner.prepare_for(torch.randn(20, *captioner.embedding_shape))
    captioner.mapper.output.weight.data.mul_(20)
    patches = torch.randn(3, *captioner.embedding_shape)
    guided = written(captioner, patches, guidance_scale=2.0)
    assert torch.equal(guided, written(captioner, patches, logits_processor=[Uncached(captioner, 2.0)]))
    assert not torch.equal(guided, written(captioner, patches))


def test_scores_are_log_probabilities_and_forbidden_tokens_stay_forbidden(captioner):
    scores = torch.randn(2, 300)
    scores[:, 5] = -torch.inf
    mean = captioner.prefix(captioner.mean_embedding.unsqueeze(0))
    with torch.no_grad():
        guided = Guidance(captioner.gpt2, mean, 3.0)(torch.empty(2, 0, dtype=torch.long), scores)
    torch.testing.assert_close(guided.exp().sum(dim=1), torch.ones(2))
    assert (guided[:, 5] == -torch.inf).all()


def test_shared_beginnings_are_computed_once(captioner, monkeypatch):
    rows, forward = [], captioner.gpt2.forward

    def counting(*ids, **rest):  # only the branch of the mean prefix passes its ids by position
        rows.extend(len(each) for each in ids)
        return forward(*ids, **rest)

    monkeypatch.setattr(captioner.gpt2, "forward", counting)
    written(captioner, torch.zeros(1, 32).expand(8, -1), guidance_scale=2.0)
    assert rows
    assert set(rows) == {1}


def test_other_processors_are_kept(captioner, embeddings):
    class Never(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores.index_fill(1, torch.tensor([7]), -torch.inf)

    plain = written(captioner, embeddings, guidance_scale=2.0)
    without = written(captioner, embeddings, guidance_scale=2.0, logits_processor=[Never()])
    assert not (without == 7).any()
    assert without.shape[0] == len(plain)


def test_the_writer_passes_it_on(writer, data, cache):
    embeddings = cache.rows(data.image_names()[:12])
    plain = writer.write(embeddings)
    assert writer.write(embeddings, Decoding(guidance=1.0)) == plain
    assert writer.write(embeddings, Decoding(guidance=20.0)) != plain
    beams = Decoding(beams=3, guidance=2.0)
    assert [writer.write(row, beams)[0] for row in embeddings.split(1)] == writer.write(embeddings, beams)
