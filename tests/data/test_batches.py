"""Captions in batches: learned tokens, padding, and the order of batches."""

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.data.batches import IGNORE, CaptionBatches, caption_tokens
from helpers.errors import UserError
from helpers.models.loading import load_gpt2


@pytest.fixture(scope="module")
def tokenizer():
    return load_gpt2("tiny")[1]


@pytest.fixture
def make(data, cache, tokenizer):
    """Return a function that makes CaptionBatches of the drawn world's training captions, or of given rows."""

    def batches(captions=None, batch_size=16, **values) -> CaptionBatches:
        rows = data.captions[data.captions.split == "train"] if captions is None else captions
        return CaptionBatches(rows, cache, tokenizer, batch_size=batch_size, **values)

    return batches


WILD = st.lists(st.text() | st.sampled_from(["<|endoftext|>", "a <|endoftext|> b", "a dog " * 500, ""]), max_size=5)


@settings(deadline=None)
@given(captions=WILD.filter(bool), longest=st.integers(2, 60))
def test_a_caption_is_its_own_text_and_one_end_of_text(tokenizer, captions, longest):
    tokens, cut = caption_tokens(tokenizer, captions, longest)
    for caption, ids in zip(captions, tokens, strict=True):
        assert (ids == tokenizer.eos_token_id).nonzero().flatten().tolist() == [len(ids) - 1]
        assert len(ids) <= longest
        if caption not in cut:
            assert tokenizer.decode(ids[:-1]) == caption
    assert [
        caption for caption in captions if len(tokenizer.tokenize(caption, split_special_tokens=True)) >= longest
    ] == cut


def test_long_captions_are_cut_and_listed(make, data):
    captions = data.captions.head(3).copy()
    captions.loc[1, "caption"] = "a red circle " * 1000
    batches = make(captions, max_tokens=12)
    assert "a red circle " * 1000 in batches.cut
    assert [len(ids) for ids in batches.tokens][1] == 12


def test_labels_are_the_ids_and_ignored_exactly_where_there_is_padding(make, tokenizer):
    batches = make()
    batch = batches.rows(list(range(12)))
    lengths = torch.tensor([len(batches.tokens[row]) for row in range(12)])
    padding = torch.arange(batch.labels.shape[1]) >= lengths[:, None]
    assert batch.labels.shape == (12, lengths.max())
    assert torch.equal(batch.labels == IGNORE, padding)
    assert torch.equal(batch.labels[~padding], batch.input_ids[~padding])
    assert (batch.labels == tokenizer.eos_token_id).sum(dim=1).tolist() == [1] * 12
    assert batch.targets == lengths.sum()


def test_every_caption_comes_with_its_own_picture(make, cache):
    batches = make()
    for row in (0, 7, 100):
        assert torch.equal(batches.rows([row]).embeddings, cache.rows([batches.captions.image_name[row]]))


def test_patches_come_by_the_batch(data, patches, tokenizer, monkeypatch):
    rows = data.captions[data.captions.split == "train"]
    batches = CaptionBatches(rows, patches, tokenizer, batch_size=16)
    batch = batches.at(3)
    assert batch.embeddings.shape == (16, 17, 128)
    for row in (0, 7, 100):
        assert torch.equal(batches.rows([row]).embeddings, patches.rows([batches.captions.image_name[row]]))
    part, _ = batch.part(1, 3)
    assert torch.equal(part.embeddings, batch.embeddings[1::3])
    assert torch.equal(batches.embeddings.typical(), patches.rows(batches.image_names))
    monkeypatch.setattr("helpers.data.embedding_cache.TYPICAL", 10)
    assert 5 <= len(batches.embeddings.typical()) <= 10


def test_of_pooled_embeddings_all_are_typical(make):
    batches = make()
    assert torch.equal(batches.embeddings.typical(), batches.embeddings[:])


def drawn(batches: CaptionBatches, epoch: int) -> list[int]:
    """Return the rows of an epoch in order."""
    return batches._order(epoch, len(batches.tokens))


def test_every_epoch_has_every_caption_once_in_another_order(make):
    batches, other = make(seed=1), make(seed=2)
    orders = [drawn(each, epoch) for each in (batches, other) for epoch in range(3)]
    assert all(sorted(order) == list(range(len(batches.tokens))) for order in orders)
    assert len({tuple(order) for order in orders}) == 6
    assert batches.steps_per_epoch == -(-len(batches.tokens) // 16)


def test_a_batch_depends_on_the_step_alone(make):
    batches, again = make(seed=3), make(seed=3)
    steps = [0, 5, batches.steps_per_epoch, 3 * batches.steps_per_epoch - 1]
    first = {step: batches.at(step) for step in steps}
    for step in reversed(steps):
        assert all(torch.equal(one, other) for one, other in zip(first[step], again.at(step), strict=True))


def test_images_without_an_embedding_are_named_and_left_out(make, data):
    stranger = pd.DataFrame({"image_name": ["b.png", "a.png", "b.png"], "caption": "A dog."})
    batches = make(pd.concat([data.captions.head(5), stranger]))
    assert batches.missing == ["a.png", "b.png"]
    assert len(batches.captions) == len(batches.tokens) == 5
    with pytest.raises(UserError, match="none of the 3 captions has its image in the cache of 60 embeddings: check"):
        make(stranger)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_of_a_batch_weigh_every_token_the_same(make, writer, parts):
    captioner = writer.captioner
    for size in (9, 2, 1):  # a last batch may leave a process without a row
        batch = make().rows(list(range(size)))
        whole = captioner(**batch._asdict()).loss
        shares = [batch.part(index, parts) for index in range(parts)]
        losses = [captioner(**part._asdict()).loss * weight for part, weight in shares]
        torch.testing.assert_close(sum(losses) / parts, whole)


def test_text_without_an_image_joins_every_training_batch_and_each_once_per_turn(make, tokenizer):
    texts = [f"a text number {number}" for number in range(25)]
    tokens, _ = caption_tokens(tokenizer, texts, 20)
    batches, plain, nothing = make(batch_size=20), make(batch_size=20), torch.full((128,), 7.0)
    batches.add_text(tokens, share=0.5, embedding=nothing)
    read = []
    for step in range(5):
        batch, own = batches.at(step), plain.at(step)
        assert len(batch.input_ids) == 30
        assert torch.equal(batch.embeddings[:20], own.embeddings)
        assert torch.equal(batch.embeddings[20:], nothing.expand(10, -1))
        kept = [ids[labels != IGNORE] for ids, labels in zip(batch.input_ids, batch.labels, strict=True)]
        assert all(torch.equal(one, row[labels != IGNORE]) for one, row, labels
                   in zip(kept[:20], own.input_ids, own.labels, strict=True))  # fmt: skip
        read += [tokenizer.decode(ids[:-1]) for ids in kept[20:]]
    assert sorted(read[:25]) == sorted(read[25:]) == sorted(texts)
    assert read[:25] != read[25:]
    assert torch.equal(batches.rows([3]).embeddings, plain.rows([3]).embeddings)  # validation has no text
    assert len(batches.longest().input_ids) == 30


def test_text_is_a_share_of_the_captions_that_are_there(make, data, tokenizer):
    tokens, _ = caption_tokens(tokenizer, [f"a text number {number}" for number in range(70)], 20)
    few = make(data.captions.head(50), batch_size=10**12)
    few.add_text(tokens, share=0.5, embedding=torch.zeros(128))
    assert len(few.at(3).input_ids) == len(few.longest().input_ids) == 75
    read = [tokenizer.decode(row[:-1]) for step in range(14) for row in few.at(step).input_ids[50:]]
    assert len(read) == 350
