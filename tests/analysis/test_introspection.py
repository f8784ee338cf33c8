"""A look inside a captioner, checked on cases with a known answer."""

import copy

import pytest
import torch

from helpers.analysis.introspection import END, attention_by_head, prefix_words, word_confidence, words_of
from helpers.data.batches import caption_tokens
from helpers.models.loading import load_encoder
from helpers.models.writer import CaptionWriter
from helpers.presets import preset


@pytest.fixture(scope="module")
def embeddings(data, cache):
    return cache.rows(data.image_names()[:5])


@pytest.fixture(scope="module")
def captions(data):
    return [data.captions.caption[data.captions.image_name == name].iloc[0] for name in data.image_names()[:5]]


def test_a_captioner_that_has_just_started_reads_as_end_of_text(embeddings):
    writer = CaptionWriter.assemble(preset("tiny"), load_encoder("tiny"))
    writer.captioner.prepare_for(embeddings)
    writer.captioner.mapper.output.weight.data.zero_()
    writer.captioner.eval()
    for slots in prefix_words(writer, embeddings):
        assert [words[0] for words in slots] == [(END, pytest.approx(1, abs=1e-5))] * 4


def test_prefix_words_are_the_nearest_by_cosine(writer, embeddings):
    found = prefix_words(writer, embeddings, number=2)
    assert [len(slots) for slots in found] == [writer.captioner.config.prefix_length] * 5
    vocabulary = writer.captioner.gpt2.transformer.wte.weight
    with torch.no_grad():
        vector = writer.captioner.prefix(embeddings)[3, 1]
        cosines = torch.nn.functional.cosine_similarity(vocabulary, vector.unsqueeze(0))
    (first, near), (_, next_near) = found[3][1]
    assert near == pytest.approx(cosines.max().item(), abs=1e-5)
    assert next_near == pytest.approx(cosines.topk(2).values[1].item(), abs=1e-5)
    assert first in (writer.tokenizer.decode([cosines.argmax()]).strip(), END)


def test_attention_is_shared_between_the_prefix_and_the_words_before(writer, embeddings, captions):
    words, attention, uniform = attention_by_head(writer, embeddings[:1], captions[0])
    shape, width = writer.captioner.config.text_config, writer.captioner.config.prefix_length
    assert words == [*captions[0].split(), END]
    assert attention.shape == (shape.n_layer, shape.n_head, len(words), width + 1)
    assert (attention >= 0).all()
    for shares in (attention, uniform):
        torch.testing.assert_close(shares.sum(dim=-1), torch.ones(shares.shape[:-1]))
        assert (shares[..., 0, -1] == 0).all()  # before the first word there is only the prefix


def test_uniform_attention_is_that_of_a_gpt2_that_looks_at_every_position_alike(writer, embeddings, captions):
    """With queries of zero every position before gets the same attention, in every block and head."""
    alike = copy.deepcopy(writer)
    for block in alike.captioner.gpt2.transformer.h:
        width = block.attn.embed_dim
        block.attn.c_attn.weight.data[:, :width] = 0
        block.attn.c_attn.bias.data[:width] = 0
    _, attention, uniform = attention_by_head(alike, embeddings[:1], captions[0])
    torch.testing.assert_close(attention, uniform.expand_as(attention))
    _, attention, _ = attention_by_head(writer, embeddings[:1], captions[0])
    assert not attention.allclose(uniform.expand_as(attention), atol=0.05)


def test_attention_is_what_gpt2_itself_reports_and_the_captioner_is_left_as_it_was(writer, embeddings, captions):
    gpt2 = writer.captioner.gpt2
    usual, before = gpt2.config._attn_implementation, writer.write(embeddings)
    _, attention, _ = attention_by_head(writer, embeddings[:1], captions[0])
    assert gpt2.config._attn_implementation == usual
    assert writer.write(embeddings) == before
    ((ids,), _) = caption_tokens(writer.tokenizer, captions[:1], 40)
    last = words_of(writer.tokenizer, ids.tolist())[-1][1]
    assert last == [len(ids) - 1]  # the end is one token: its row is that of the last position but one
    with torch.no_grad():
        inputs = torch.cat([writer.captioner.prefix(embeddings[:1]), gpt2.transformer.wte(ids[None, :-1])], dim=1)
        gpt2.set_attn_implementation("eager")
        reported = torch.stack(gpt2(inputs_embeds=inputs, output_attentions=True).attentions)  # [L, 1, H, Q, K]
        gpt2.set_attn_implementation(usual)
    torch.testing.assert_close(attention[:, :, -1, :4], reported[:, 0, :, -1, :4])


def test_confidence_is_the_softmax_of_forwards_logits(writer, embeddings, captions):
    sure = word_confidence(writer, embeddings, captions)
    for embedding, caption, words in zip(embeddings.split(1), captions, sure, strict=True):
        assert [word for word, _ in words] == [*caption.split(), END]
        ((ids,), _) = caption_tokens(writer.tokenizer, [caption], 40)
        with torch.no_grad():
            logits = writer.captioner(ids.unsqueeze(0), embeddings=embedding).logits[0]
        probabilities = logits.softmax(dim=-1).gather(1, ids.unsqueeze(1)).squeeze(1)
        product = torch.tensor([probability for _, probability in words]).prod()
        torch.testing.assert_close(product, probabilities.prod(), rtol=1e-3, atol=1e-6)


def test_greedy_words_are_the_surest_and_batches_are_single(writer, embeddings):
    written = writer.write(embeddings)
    together = word_confidence(writer, embeddings, written)
    alone = [word_confidence(writer, embeddings[row : row + 1], written[row : row + 1])[0] for row in range(5)]
    for one, other in zip(together, alone, strict=True):
        assert [word for word, _ in one] == [word for word, _ in other]
        assert [p for _, p in one] == pytest.approx([p for _, p in other], abs=1e-5)


@pytest.mark.parametrize("text", ["", "Überraschung, 火山!", "a  b", "<|endoftext|> is text", "it's a dog."])
def test_words_hold_every_token_once(writer, text):
    ((ids,), _) = caption_tokens(writer.tokenizer, [text], 90)
    words = words_of(writer.tokenizer, ids.tolist())
    assert [place for _, places in words for place in places] == list(range(len(ids)))
    assert words[-1] == (END, [len(ids) - 1])
    assert [word for word, _ in words[:-1] if word] == text.split()
