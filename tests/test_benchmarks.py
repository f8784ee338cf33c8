"""What ours is compared with computes the same thing: a baseline that did other work would make any ratio."""

import copy
import json

import pytest
import torch
from small_models import random_batch, random_captioner

from benchmarks import baselines, limit, models
from benchmarks.run import RESULTS, as_markdown
from helpers.models.freezing import freeze
from helpers.training.loss import Likelihood
from helpers.training.packing import pack


def test_the_padded_step_has_our_loss_and_trains_the_same():
    captioner = random_captioner().eval()
    freeze(captioner.gpt2, "first-and-last")
    batch, before = random_batch([5, 9, 3, 14]), copy.deepcopy(captioner.state_dict())
    ours = Likelihood(captioner)(pack(batch, captioner.config.prefix_length)).item()
    assert baselines.padded_step(captioner)(batch) == pytest.approx(ours, rel=1e-5)
    trained = {name for name, parameter in captioner.named_parameters() if parameter.requires_grad}
    changed = {name for name, value in captioner.state_dict().items() if not value.equal(before[name])}
    assert changed - {"gpt2.lm_head.weight"} <= trained  # the same tensor as the token embeddings
    assert "gpt2.transformer.wte.weight" in changed


def test_the_loops_write_our_captions():
    captioner, embedding = random_captioner().eval(), torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    lengths = {"max_new_tokens": 8, "min_new_tokens": 8}
    greedy = captioner.generate(embedding, **lengths, do_sample=False)[0].tolist()
    eos = captioner.config.text_config.eos_token_id
    loop = baselines.greedy_loop(captioner, embedding, 8)
    assert loop == greedy or eos in loop  # ours may not end before its eighth token
    beams = captioner.generate(embedding, **lengths, num_beams=5, do_sample=False)[0].tolist()
    loop = baselines.beam_loop(captioner, embedding, 8).tolist()
    assert loop == beams or eos in loop


def test_the_batches_have_flickr30ks_lengths():
    stream = models.batches(captions=512)
    lengths = torch.cat([(next(stream).labels >= 0).sum(dim=1) for _ in range(10)]).float()
    assert lengths.mean().item() == pytest.approx(15.07, abs=0.4)
    packed, padded = pack(next(models.batches()), 4), next(models.batches())
    assert padded.input_ids.numel() > 1.8 * len(packed.targets)


def test_the_limit_counts_the_arithmetic_of_a_step():
    """Six operations a weight and place where weights train, four where they are frozen."""
    operations = sum(2 * a * b * c * times for (a, b, c), times in limit.training_step("small").items())
    stream = models.batches()
    _, *packed = (pack(next(stream), 4) for _ in range(3))  # the first warms up
    places = sum(batch.tokens.numel() for batch in packed) // 2
    targets = sum(len(batch.targets) for batch in packed) // 2
    block, head = 12 * 768**2, 50_257 * 768
    wanted = places * block * (12 * 4 + 2 * 2) + targets * head * 6
    wanted += 64 * 6 * block * 6 + 64 * 768 * 4 * 768 * 6  # the mapper sees one vector of each picture
    assert operations == wanted


def test_the_table_in_the_readme_is_that_of_the_results():
    works = json.loads((RESULTS / "table.json").read_text())["works"]
    assert as_markdown(works) in (RESULTS.parent / "README.md").read_text()


def test_the_originals_mapper_mixes_the_images_of_a_batch_in_training_alone():
    torch.manual_seed(0)
    mapper, embeddings = baselines.MixingMapper(32, 4, 48, layers=2, heads=4), torch.randn(3, 32)
    for layer in mapper.encoder.layers:
        layer.self_attn.dropout = 0.0
        layer.dropout1.p = layer.dropout2.p = layer.dropout.p = 0.0
    mixed, alone = mapper.train()(embeddings), mapper.eval()(embeddings)
    assert mixed.shape == alone.shape == (3, 4, 48)
    assert not mixed.allclose(alone, atol=1e-3)
    assert mapper(embeddings[:1]).allclose(alone[:1], atol=1e-5)
    assert mapper.train()(embeddings[:1]).allclose(alone[:1], atol=1e-5)  # alone it has nobody to attend to
