"""The captioner's mathematics; most of these would have caught a defect of the original."""

import copy
import math

import pytest
import torch
from small_models import END, random_captioner
from torch.nn import functional as F
from transformers import AutoConfig

from helpers.data.batches import IGNORE
from helpers.encoders.vision import image_features
from helpers.errors import UserError
from helpers.models.captioner import Captioner
from helpers.models.captioner_config import CaptionerConfig
from helpers.models.mapping import MAPPERS


@pytest.fixture
def captioner():
    return random_captioner()


def batch(rows=3, tokens=7, seed=1):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, END, (rows, tokens), generator=generator)
    ids[:, -1] = END
    return torch.randn(rows, 32, generator=generator), ids


def test_the_loss_is_cross_entropy_of_the_logits_once(captioner):
    """A softmax before the cross-entropy keeps the loss within one nat of ln V, whatever the model learns."""
    embeddings, ids = batch()
    output = captioner(ids, embeddings=embeddings, labels=ids)
    picked = output.logits.log_softmax(dim=-1).gather(2, ids.unsqueeze(2))
    torch.testing.assert_close(output.loss, -picked.mean())
    floor = math.log(math.e + 299) - 1  # where the double softmax ends
    for parameter in captioner.gpt2.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam([p for p in captioner.parameters() if p.requires_grad], lr=0.01)
    for _ in range(60):
        loss = captioner(ids, embeddings=embeddings, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5 < floor


def test_positions_are_added_once_by_gpt2_itself(captioner):
    embeddings, ids = batch()
    inputs = torch.cat([captioner.prefix(embeddings), captioner.gpt2.transformer.wte(ids)], dim=1)
    logits = captioner.gpt2(inputs_embeds=inputs).logits
    torch.testing.assert_close(captioner(ids, embeddings=embeddings).logits, logits[:, 3:-1])


def test_the_first_token_and_the_end_of_text_are_targets(captioner):
    embeddings, ids = batch()
    loss = captioner(ids, embeddings=embeddings, labels=ids).loss
    for position in (0, -1):
        labels = ids.clone()
        labels[:, position] = IGNORE
        assert captioner(ids, embeddings=embeddings, labels=labels).loss != loss


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("given", ["random", "pretrained", "loaded"])
def test_no_token_sees_those_after_it(given, training, tmp_path):
    """Each way to make a captioner keeps GPT-2's attention causal; without a mask the loss falls to nothing."""
    captioner = random_captioner()
    if given == "pretrained":
        config = CaptionerConfig(captioner.clip.config, captioner.gpt2.config, mapper_layers=2, mapper_heads=4)
        captioner = Captioner(config, captioner.clip, captioner.gpt2)
    if given == "loaded":
        captioner.save_pretrained(tmp_path)
        captioner = Captioner.from_pretrained(tmp_path)
    embeddings, ids = batch()
    captioner.train(training)
    captioner.mapper.eval()
    changed = ids.clone()
    changed[:, 4:] = 7
    one, other = (captioner(x, embeddings=embeddings).logits[:, :5] for x in (ids, changed))
    torch.testing.assert_close(one, other)


def test_training_and_decoding_begin_alike(captioner):
    """Caption token 0 is scored in training at the place where generate begins: no extra token at inference only."""
    embeddings, ids = batch()
    first = captioner(ids, embeddings=embeddings).logits[:, 0].argmax(dim=-1)
    assert torch.equal(captioner.generate(embeddings, max_new_tokens=1)[:, 0], first)


def test_greedy_decoding_follows_teacher_forcing(captioner):
    embeddings, _ = batch()
    ids = captioner.generate(embeddings, max_new_tokens=10)
    assert torch.equal(captioner(ids, embeddings=embeddings).logits.argmax(dim=-1), ids)


def test_padding_changes_nothing(captioner):
    embeddings, ids = batch()
    short = captioner(ids[:1, :4], embeddings=embeddings[:1], labels=ids[:1, :4]).loss
    for filler in (0, END):
        padded, labels = ids[:1].clone(), ids[:1].clone()
        padded[:, 4:], labels[:, 4:] = filler, IGNORE
        torch.testing.assert_close(captioner(padded, embeddings=embeddings[:1], labels=labels).loss, short)


def test_pixel_values_and_their_embeddings_are_the_same(captioner):
    pixels = torch.randn(2, 3, 32, 32)
    embeddings = captioner.clip(pixel_values=pixels).pooler_output
    torch.testing.assert_close(captioner.prefix(pixel_values=pixels), captioner.prefix(embeddings))
    assert torch.equal(captioner.generate(pixel_values=pixels), captioner.generate(embeddings))
    with pytest.raises(ValueError, match="either embeddings"):
        captioner.prefix(embeddings, pixels)


@pytest.mark.parametrize("mapper", ["encoder", "queries"])
def test_with_patches_it_does_all_the_same(mapper, tmp_path):
    captioner = random_captioner(mapper=mapper, pooling="patches")
    assert captioner.embedding_shape == captioner.mean_embedding.shape == (5, 32)
    pixels, (_, ids) = torch.randn(3, 3, 32, 32), batch()
    output = captioner.clip(pixel_values=pixels)
    embeddings = image_features(captioner.clip, pixels, "patches")
    torch.testing.assert_close(embeddings[:, 0], output.pooler_output)
    captioner.prepare_for(embeddings)
    torch.testing.assert_close(captioner.embedding_mean, embeddings.mean(dim=(0, 1)))
    torch.testing.assert_close(captioner.prefix(pixel_values=pixels), captioner.prefix(embeddings))
    assert torch.equal(captioner.generate(pixel_values=pixels), captioner.generate(embeddings))
    captioner.save_pretrained(tmp_path)
    again = Captioner.from_pretrained(tmp_path)
    assert again.config.pooling == "patches"
    assert torch.equal(again(ids, embeddings=embeddings).logits, captioner(ids, embeddings=embeddings).logits)


def test_embeddings_of_the_other_pooling_are_refused(captioner):
    with pytest.raises(UserError, match=r"are \[2, 5, 32\], but .* pooling is 'pooled' and each must be \[32\]: make"):
        captioner.prefix(torch.randn(2, 5, 32))
    with pytest.raises(UserError, match=r"are \[2, 32\], but .* pooling is 'patches' and each must be \[5, 32\]"):
        random_captioner(pooling="patches").prefix(torch.randn(2, 32))


@pytest.mark.parametrize("mapper", MAPPERS)
def test_it_starts_from_a_language_model_that_works(mapper):
    captioner = random_captioner(mapper=mapper)
    embeddings = torch.randn(50, 32) * 7 + 3
    captioner.prepare_for(embeddings)
    neutral = captioner.gpt2.transformer.wte.weight[END]
    prefix = captioner.prefix(embeddings)
    assert (prefix.mean(dim=(0, 1)) - neutral).abs().mean() < 0.3 * neutral.abs().mean()
    assert (prefix - neutral).abs().mean() < neutral.abs().mean()
    standardised = (embeddings - captioner.embedding_mean) / captioner.embedding_std
    torch.testing.assert_close(standardised.std(dim=0), torch.ones(32))


def test_a_constant_feature_does_not_blow_up(captioner):
    captioner.prepare_for(torch.ones(10, 32))
    assert captioner.prefix(torch.ones(1, 32) * 1.001).isfinite().all()


def test_saved_and_loaded_it_is_the_same(captioner, tmp_path):
    embeddings, ids = batch()
    captioner.prepare_for(embeddings)
    captioner.save_pretrained(tmp_path)
    again = Captioner.from_pretrained(tmp_path)
    assert torch.equal(again(ids, embeddings=embeddings).logits, captioner(ids, embeddings=embeddings).logits)
    assert again.gpt2.lm_head.weight is again.gpt2.transformer.wte.weight
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors",
    ]  # fmt: skip


def test_it_is_a_model_as_any_other_of_transformers(captioner, tmp_path):
    captioner.save_pretrained(tmp_path, push_to_hub=False)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, CaptionerConfig)
    assert config.vision_config.hidden_size == 32
    assert config.text_config.n_embd == 48
    assert Captioner.from_pretrained(tmp_path, dtype=torch.bfloat16).generate(torch.randn(2, 32)).shape[0] == 2


def differs(captioner, embeddings, base, **kwargs):
    return not torch.equal(captioner.generate(embeddings, **{"max_new_tokens": 12, **base}),
                           captioner.generate(embeddings, **{"max_new_tokens": 12, **base, **kwargs}))  # fmt: skip


def test_every_knob_of_the_decoding_has_an_effect(captioner):
    embeddings = torch.randn(8, 32) * 3
    assert differs(captioner, embeddings, {}, num_beams=4)
    assert differs(captioner, embeddings, {}, max_new_tokens=3)

    def sampled(**kwargs):
        torch.manual_seed(0)
        return captioner.generate(embeddings, do_sample=True, max_new_tokens=12, top_k=0, **kwargs)

    assert torch.equal(sampled(temperature=1.0), sampled(temperature=1.0))
    assert not torch.equal(sampled(temperature=1.0), sampled(temperature=3.0))
    assert not torch.equal(sampled(temperature=3.0), sampled(temperature=3.0, top_p=0.1))
    greedy = captioner.generate(embeddings, max_new_tokens=12)
    assert torch.equal(sampled(temperature=1.0, top_p=1e-6), greedy)


@pytest.mark.parametrize("prefix_length", [1, 4])
def test_beams_that_share_a_prefix_find_what_gpt2_finds_for_each_alone(prefix_length):
    captioner = random_captioner(prefix_length=prefix_length).eval()
    prefix = captioner.prefix(torch.randn(5, 32, generator=torch.Generator().manual_seed(7)))
    mask, choices = torch.ones(prefix.shape[:2], dtype=torch.long), {"num_beams": 3, "max_new_tokens": 9}
    plain = copy.deepcopy(captioner.generation_config)
    plain.update(**choices)
    wanted = captioner.gpt2.generate(inputs_embeds=prefix, attention_mask=mask, generation_config=plain)
    embeddings = torch.randn(5, 32, generator=torch.Generator().manual_seed(7))
    assert captioner.generate(embeddings, **choices).equal(wanted)
    assert captioner.generate(embeddings, **choices, use_cache=False).equal(wanted)


def test_beams_are_ranked_by_the_captioners_own_length_penalty():
    embeddings = torch.randn(20, 32, generator=torch.Generator().manual_seed(7))
    plain, short = (random_captioner(beam_length_penalty=power) for power in (1.0, 0.0))
    for captioner in (plain, short):
        captioner.gpt2.transformer.wte.weight.data[END] *= 3  # so that captions end
    choices = {"num_beams": 4, "max_new_tokens": 12}
    lengths = [(each.generate(embeddings, **choices) != END).sum() for each in (plain, short)]
    assert lengths[0] > lengths[1]
    assert short.generate(embeddings, **choices).equal(plain.generate(embeddings, **choices, length_penalty=0.0))
    assert plain.generate(embeddings, **choices).equal(short.generate(embeddings, **choices, length_penalty=1.0))
    assert short.generate(embeddings, max_new_tokens=12).equal(plain.generate(embeddings, max_new_tokens=12))  # greedy


def test_batched_captions_are_the_single_ones(captioner):
    embeddings, _ = batch(rows=5)
    for beams in (1, 3):
        together = captioner.generate(embeddings, num_beams=beams, max_new_tokens=8)
        for row in range(5):
            alone = captioner.generate(embeddings[row : row + 1], num_beams=beams, max_new_tokens=8)[0]
            assert torch.equal(F.pad(alone, (0, together.shape[1] - len(alone)), value=END), together[row])


def test_noise_on_the_embeddings_is_for_training_alone():
    noisy, plain = random_captioner(embedding_noise=0.5), random_captioner()
    embeddings = torch.randn(4, 32)
    assert torch.equal(noisy.prefix(embeddings), plain.prefix(embeddings))
    prefixes = [noisy.train().prefix(embeddings) for _ in range(2)]
    assert not torch.allclose(*prefixes, atol=1e-3)
