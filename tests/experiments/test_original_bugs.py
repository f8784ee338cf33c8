"""Each of the original's defects is what its name says, and is gone when its context ends."""

import math

import pytest
import torch
from small_models import END, random_captioner

from helpers.data.batches import Batch
from helpers.experiments.original_bugs import DEFECTS, ONE_BY_ONE, softmax_twice
from helpers.models.captioner import IGNORE, Captioner
from helpers.models.mapping import EncoderMapper
from helpers.training import loop as training
from helpers.training import optimizer as learner
from helpers.training.loss import Likelihood
from helpers.training.optimizer import lr_at
from helpers.training.packing import pack

REPLACED = [(Likelihood, "forward"), (Captioner, "__init__"), (Captioner, "generate"), (EncoderMapper, "forward"),
            (learner, "lr_at"), (learner, "pack"), (training, "split_batches")]  # fmt: skip


@pytest.fixture
def batch() -> Batch:
    """Captions of 5, 3 and 2 tokens."""
    torch.manual_seed(1)
    input_ids = torch.randint(0, END, (3, 5))
    labels = input_ids.clone()
    for row, length in enumerate((5, 3, 2)):
        labels[row, length - 1] = input_ids[row, length - 1] = END
        labels[row, length:] = IGNORE
    return Batch(torch.randn(3, 32), input_ids, labels)


def replaced() -> list[object]:
    return [getattr(place, name) for place, name in REPLACED]


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_ends_with_its_context(name):
    right = replaced()
    with DEFECTS[name]():
        changed = sum(now is not then for now, then in zip(replaced(), right, strict=True))
        assert changed == {"none": 0, "all": len(REPLACED)}.get(name, 1)
    assert replaced() == right


def test_a_doubled_softmax_cannot_leave_its_bounds_but_validation_sees_the_truth(batch):
    captioner = random_captioner()
    likelihood, packed = Likelihood(captioner), pack(batch, captioner.config.prefix_length)
    true = likelihood(packed).item()
    with DEFECTS["double-softmax"]():
        assert math.log(math.e + 299) - 1 <= likelihood(packed).item() <= math.log(math.e + 299)
        assert likelihood(packed).item() != pytest.approx(true, abs=0.01)
        with torch.no_grad():
            assert likelihood(packed).item() == pytest.approx(true, abs=1e-4)


def test_a_doubled_softmax_has_its_bounds_from_the_vocabulary():
    logits = torch.zeros(1, 50_257)
    logits[0, 7] = 1e4
    losses = [softmax_twice(logits, torch.tensor([target])).item() for target in (7, 8)]  # surely right, surely wrong
    assert losses == pytest.approx([9.825, 10.825], abs=1e-3)
    assert losses == pytest.approx([math.log(math.e + 50_256) - 1, math.log(math.e + 50_256)], abs=1e-4)
    unsure = softmax_twice(0 * logits, torch.tensor([7])).item()
    assert unsure == pytest.approx(math.log(50_257), abs=1e-4)


def test_an_absolute_rate_in_a_factors_place_peaks_at_nine_millionths():
    with DEFECTS["absolute-lr"]():
        rates = [learner.lr_at(step, 300, peak, 1 / 3) for peak in (2e-4, 3e-3) for step in range(300)]
    assert rates[:300] == rates[300:]
    assert max(rates) == pytest.approx(9e-6)
    assert rates.index(max(rates)) == 99
    assert learner.lr_at is lr_at


def test_images_are_mixed_in_training_and_only_there(batch):
    captioner = random_captioner()
    with DEFECTS["mixed-images"]():
        together, alone = captioner.train().prefix(batch.embeddings), captioner.prefix(batch.embeddings[:1])
        assert not torch.allclose(together[:1], alone, atol=1e-3)
        together, alone = captioner.eval().prefix(batch.embeddings), captioner.prefix(batch.embeddings[:1])
        assert torch.allclose(together[:1], alone, atol=1e-5)


def test_positions_are_added_twice_in_training_and_in_writing(batch):
    right = random_captioner(seed=3)
    with DEFECTS["double-wpe"]():
        wrong = random_captioner(seed=3)
    right.gpt2.transformer.wpe.weight.data *= 2
    losses = [Likelihood(each)(pack(batch, 4)).item() for each in (wrong, right)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert torch.equal(*(each.generate(batch.embeddings, max_new_tokens=6) for each in (wrong, right)))


def test_the_first_word_stands_before_the_prefix_when_writing_and_only_then(batch):
    captioner, packed = random_captioner(), pack(batch, 4)
    loss, prefix = Likelihood(captioner)(packed).item(), captioner.prefix(batch.embeddings)
    bos = captioner.gpt2.transformer.wte.weight[END].expand(3, 1, -1)
    wanted = captioner.gpt2.generate(
        inputs_embeds=torch.cat([bos, prefix], dim=1), attention_mask=torch.ones(3, 5, dtype=torch.long),
        generation_config=captioner.generation_config, max_new_tokens=6,
    )  # fmt: skip
    with DEFECTS["bos-at-inference"]():
        assert torch.equal(captioner.generate(batch.embeddings, max_new_tokens=6), wanted)
        assert Likelihood(captioner)(packed).item() == loss
    assert captioner.prefix(batch.embeddings).shape[1] == 4


def test_nothing_is_learned_about_the_first_token(batch):
    captioner = random_captioner()
    likelihood, packed = Likelihood(captioner), pack(batch, 4)
    nats = likelihood.nats(packed)  # of the tokens in the order of the captions
    later = torch.tensor([place for place in range(10) if place not in (0, 5, 8)])
    with DEFECTS["first-token-lost"]():
        assert likelihood(packed).item() == pytest.approx(nats[later].mean().item(), abs=1e-5)
        with torch.no_grad():
            assert likelihood(packed).item() == pytest.approx(nats.mean().item(), abs=1e-5)


def test_padding_counts_as_end_of_text(batch):
    with DEFECTS["padding-learned"]():
        packed = learner.pack(batch, 4)
    assert len(packed.targets) == 15
    assert (packed.targets == END).sum() == 1 + 3 + 4
    assert len(pack(batch, 4).targets) == 10


def test_a_split_by_rows_puts_the_same_images_into_train_and_val(data, config, cache, writer):
    def images(split):
        arguments = (config, data.captions, split, cache, writer, print)
        return set(training.split_batches(*arguments).image_names)

    assert not images("train") & images("val")
    with DEFECTS["split-by-rows"]():
        leaked = images("train") & images("val")
        assert len(leaked) > 0.8 * len(images("val"))


def test_the_names_are_the_same_in_the_table_and_one_by_one():
    assert list(DEFECTS) == ["none", *ONE_BY_ONE, "all"]
