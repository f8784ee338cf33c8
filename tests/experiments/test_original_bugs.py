"""Each of the original's bugs does what its name says and changes nothing else."""

import math

import pytest
import torch
from small_models import END, random_captioner

from helpers.data.batches import IGNORE, Batch
from helpers.experiments.original_bugs import (
    BUGS,
    BosAtInference,
    DoubleSoftmax,
    DoubleWpe,
    FirstTokenLost,
    MixedImages,
    PublishedCaptioner,
    TripleWpe,
    softmax_twice,
)
from helpers.models.captioner import Captioner
from helpers.models.writer import CaptionWriter
from helpers.training.loop import train
from helpers.training.loss import CaptionLoss
from helpers.training.optimizer import Parts, lr_at
from helpers.training.packing import pack
from helpers.training.session import split_batches


@pytest.fixture
def batch() -> Batch:
    """A batch of captions of 5, 3 and 2 tokens."""
    torch.manual_seed(1)
    input_ids = torch.randint(0, END, (3, 5))
    labels = input_ids.clone()
    for row, length in enumerate((5, 3, 2)):
        labels[row, length - 1] = input_ids[row, length - 1] = END
        labels[row, length:] = IGNORE
    return Batch(torch.randn(3, 32), input_ids, labels)


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_replaces_one_thing_and_all_of_them_everything(name, data):
    right, bug = Parts(), BUGS[name]
    changed = [
        part for part in ("captioner", "loss", "schedule", "pack") if getattr(bug.parts, part) != getattr(right, part)
    ]
    if bug.deal(data.captions, 0) is not data.captions:
        changed.append("deal")
    assert len(changed) == {"none": 0, "all": 5}.get(name, 1)


def test_all_of_them_hold_each_part_of_each(data):
    every = BUGS["all"]
    for name, bug in BUGS.items():
        assert issubclass(every.parts.captioner, bug.parts.captioner), name
        assert issubclass(every.parts.loss, bug.parts.loss), name


def test_the_model_of_all_bugs_is_saved_and_loaded_as_it_was(data, config, cache, tmp_path):
    every = BUGS["all"]
    captions = every.deal(data.captions, config.seed)
    run = train(config, captions, cache.folder, out=tmp_path / "run", parts=every.parts, max_steps=2)
    wrong = CaptionWriter.load(run.captioner, captioner_class=every.parts.captioner)
    assert isinstance(wrong.captioner, PublishedCaptioner)
    plain = CaptionWriter.load(run.captioner).captioner
    assert type(plain) is Captioner
    state = wrong.captioner.state_dict()
    assert state.keys() == plain.state_dict().keys()
    assert all(torch.equal(weight, state[name]) for name, weight in plain.state_dict().items())
    embeddings = cache.rows(cache.image_names[:4])
    assert wrong.captioner.generation_prefix(embeddings).shape[1] == 1 + config.prefix_length
    assert not torch.equal(
        wrong.captioner.gpt2.transformer.wpe(torch.arange(3)), plain.gpt2.transformer.wpe(torch.arange(3))
    )


def test_a_doubled_softmax_cannot_leave_its_bounds_but_validation_sees_the_truth(batch):
    captioner = random_captioner()
    packed = pack(batch, captioner.config.prefix_length)
    true, doubled = CaptionLoss(captioner)(packed).item(), DoubleSoftmax(captioner)
    assert math.log(math.e + 299) - 1 <= doubled(packed).item() <= math.log(math.e + 299)
    assert doubled(packed).item() != pytest.approx(true, abs=0.01)
    with torch.no_grad():
        assert doubled(packed).item() == pytest.approx(true, abs=1e-4)


def test_a_doubled_softmax_has_its_bounds_from_the_vocabulary():
    logits = torch.zeros(1, 50_257)
    logits[0, 7] = 1e4
    losses = [softmax_twice(logits, torch.tensor([target])).item() for target in (7, 8)]  # certain: right, wrong
    assert losses == pytest.approx([9.825, 10.825], abs=1e-3)
    assert losses == pytest.approx([math.log(math.e + 50_256) - 1, math.log(math.e + 50_256)], abs=1e-4)
    unsure = softmax_twice(0 * logits, torch.tensor([7])).item()
    assert unsure == pytest.approx(math.log(50_257), abs=1e-4)


def test_an_absolute_rate_in_a_factors_place_peaks_at_nine_millionths():
    schedule = BUGS["absolute-lr"].parts.schedule
    rates = [schedule(step, 300, peak=peak, warmup=1 / 3) for peak in (2e-4, 3e-3) for step in range(300)]
    assert rates[:300] == rates[300:]
    assert max(rates) == pytest.approx(9e-6)
    assert rates.index(max(rates)) == 99
    assert max(lr_at(step, 300, peak=3e-3) for step in range(300)) == pytest.approx(3e-3)


def test_images_are_mixed_in_training_and_only_there(batch):
    captioner = random_captioner(kind=MixedImages)
    together, alone = captioner.train().prefix(batch.embeddings), captioner.prefix(batch.embeddings[:1])
    assert not torch.allclose(together[:1], alone, atol=1e-3)
    together, alone = captioner.eval().prefix(batch.embeddings), captioner.prefix(batch.embeddings[:1])
    assert torch.allclose(together[:1], alone, atol=1e-5)
    assert torch.allclose(together, random_captioner().prefix(batch.embeddings), atol=1e-5)


def test_positions_are_added_twice_in_training_and_in_writing(batch):
    right, wrong = random_captioner(seed=3), random_captioner(seed=3, kind=DoubleWpe)
    right.gpt2.transformer.wpe.weight.data *= 2
    losses = [CaptionLoss(each)(pack(batch, 4)).item() for each in (wrong, right)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert torch.equal(*(each.generate(batch.embeddings, max_new_tokens=6) for each in (wrong, right)))


@torch.no_grad()
def written_as_published(captioner: Captioner, embedding: torch.Tensor, tokens: int) -> list[int]:
    """Write as the original's loop does: positions by hand, added in place, then again by GPT-2."""
    transformer, written = captioner.gpt2.transformer, []
    start = captioner.prefix(embedding)[0]  # [P, E]
    for _ in range(tokens):
        inputs = torch.cat([start, transformer.wte(torch.tensor(written))]) if written else start
        inputs += transformer.wpe(torch.arange(len(inputs)))
        written.append(captioner.gpt2(inputs_embeds=inputs.unsqueeze(0)).logits[0, -1].argmax().item())
    return written


def test_positions_are_added_a_third_time_to_the_prefix_once_a_token_is_written(batch):
    wrong, twice = random_captioner(seed=3, kind=TripleWpe), random_captioner(seed=3, kind=DoubleWpe)
    right = random_captioner(seed=3)
    for captioner in (wrong, twice, right):
        captioner.gpt2.transformer.wpe.weight.data *= 3  # so that the third time changes a token here
        captioner.generation_config.eos_token_id = None
    found, otherwise = (each.generate(batch.embeddings, max_new_tokens=8) for each in (wrong, twice))
    wanted = [written_as_published(right, row.unsqueeze(0), 8) for row in batch.embeddings]
    assert all(END not in tokens for tokens in wanted)
    assert found.tolist() == wanted
    assert torch.equal(found[:, 0], otherwise[:, 0])
    assert not torch.equal(found, otherwise)
    assert CaptionLoss(wrong)(pack(batch, 4)).item() == CaptionLoss(twice)(pack(batch, 4)).item()
    assert wrong.generate(batch.embeddings, max_new_tokens=1).tolist() == [[tokens[0]] for tokens in wanted]


def test_a_caption_whose_first_token_is_the_end_has_no_others(batch):
    captioner = random_captioner(seed=3, kind=TripleWpe)
    first = captioner.generate(batch.embeddings, max_new_tokens=1)[0, 0].item()
    captioner.config.text_config.eos_token_id = first
    written = captioner.generate(batch.embeddings[:1], max_new_tokens=5, eos_token_id=None)
    assert written.tolist() == [[first] * 5]


def test_the_first_word_stands_before_the_prefix_when_writing_and_only_then(batch):
    captioner, packed = random_captioner(kind=BosAtInference), pack(batch, 4)
    prefix = captioner.prefix(batch.embeddings)
    bos = captioner.gpt2.transformer.wte.weight[END].expand(3, 1, -1)
    wanted = captioner.gpt2.generate(
        inputs_embeds=torch.cat([bos, prefix], dim=1), attention_mask=torch.ones(3, 5, dtype=torch.long),
        generation_config=captioner.generation_config, max_new_tokens=6,
    )  # fmt: skip
    assert torch.equal(captioner.generate(batch.embeddings, max_new_tokens=6), wanted)
    assert CaptionLoss(captioner)(packed).item() == CaptionLoss(random_captioner())(packed).item()
    assert prefix.shape[1] == 4


def test_nothing_is_learned_about_the_first_token(batch):
    captioner = random_captioner()
    loss, packed = FirstTokenLost(captioner), pack(batch, 4)
    nats = loss.nats(packed)  # one per token, in the order of the captions
    later = torch.tensor([place for place in range(10) if place not in (0, 5, 8)])
    assert loss(packed).item() == pytest.approx(nats[later].mean().item(), abs=1e-5)
    with torch.no_grad():
        assert loss(packed).item() == pytest.approx(nats.mean().item(), abs=1e-5)


def test_padding_counts_as_end_of_text(batch):
    packed = BUGS["padding-learned"].parts.pack(batch, 4)
    assert len(packed.targets) == 15
    assert (packed.targets == END).sum() == 1 + 3 + 4
    assert len(pack(batch, 4).targets) == 10


def test_the_end_is_never_a_target_and_all_other_tokens_are(batch):
    packed, right = BUGS["end-never-learned"].parts.pack(batch, 4), pack(batch, 4)
    assert END not in packed.targets
    assert packed.targets.equal(right.targets[right.targets != END])
    assert packed.sources.equal(right.sources[right.targets != END])
    assert torch.equal(packed.tokens, right.tokens)


@pytest.mark.parametrize(("name", "ends"), [("none", True), ("end-never-learned", False)])
def test_a_captioner_that_never_learned_the_end_runs_on_past_it(name, ends, batch):
    captioner = random_captioner().train()
    loss, optimizer = CaptionLoss(captioner), torch.optim.AdamW(captioner.parameters(), lr=3e-3)
    for _ in range(60):
        loss(BUGS[name].parts.pack(batch, 4)).backward()
        optimizer.step()
        optimizer.zero_grad()
    written = captioner.eval().generate(batch.embeddings, max_new_tokens=20)
    for caption, labels in zip(written, batch.labels, strict=True):
        words = labels[(labels != IGNORE) & (labels != END)]
        assert caption[: len(words)].equal(words)
        assert (END in caption) == ends


def test_a_split_by_rows_puts_the_same_images_into_train_and_val(data, config, cache, writer):
    def images(captions, split):
        return set(split_batches(captions, split, config, cache=cache, writer=writer, say=print).image_names)

    right, dealt = data.captions, BUGS["split-by-rows"].deal(data.captions, config.seed)
    assert not images(right, "train") & images(right, "val")
    leaked = images(dealt, "train") & images(dealt, "val")
    assert len(leaked) > 0.8 * len(images(dealt, "val"))
