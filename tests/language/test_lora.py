"""Adapters beside frozen weights: they change only what they should, and merging gives the same model."""

import builtins

import pytest
import torch
from small_models import learn, random_captioner

from helpers.config import Config
from helpers.errors import UserError
from helpers.language.freezing import freeze, freezing_table, merged_state
from helpers.models.captioner import Captioner
from helpers.training.checkpoint import trained_tensors
from helpers.training.optimizer import parameter_groups


def adapted(seed=0, embeddings=False, rank=4, dropout=0.0) -> Captioner:
    captioner = random_captioner(seed, dropout)
    freeze(captioner.gpt2, Config(freezing="lora", train_embeddings=embeddings, lora_rank=rank))
    return captioner


def adapt(captioner, steps=5) -> None:
    captioner.train()
    learn(captioner, torch.optim.AdamW([p for p in captioner.parameters() if p.requires_grad], lr=0.01), steps, seed=1)
    captioner.eval()


def test_at_first_it_changes_nothing():
    ids, embeddings = torch.randint(0, 299, (4, 6)), torch.randn(4, 32)
    plain, with_adapters = (made(ids, embeddings=embeddings).logits for made in (random_captioner(), adapted()))
    assert torch.equal(plain, with_adapters)


@pytest.mark.parametrize("embeddings", [False, True])
def test_adapters_learn_and_the_weights_beside_them_stay_to_the_bit(embeddings):
    captioner = adapted(embeddings=embeddings)
    before = {name: weight.clone() for name, weight in captioner.named_parameters()}
    adapt(captioner)
    moved = {name for name, weight in captioner.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name, weight in captioner.named_parameters() if weight.requires_grad}
    of_gpt2 = {name for name in moved if name.startswith("gpt2.")}
    own = {name for name in of_gpt2 if ".lora_A." in name or ".lora_B." in name}
    assert len(own) == 3 * 3 * 2  # three blocks; c_attn and two layers named c_proj; A and B of each
    tables = {"gpt2.transformer.wte.weight", "gpt2.transformer.wpe.weight"}
    assert of_gpt2 - own == (tables if embeddings else set())


def test_merged_it_is_a_plain_captioner_that_says_the_same(tmp_path):
    captioner = adapted()
    adapt(captioner)
    before = {name: weight.clone() for name, weight in captioner.state_dict().items()}
    captioner.save_pretrained(tmp_path)
    assert all(torch.equal(weight, before[name]) for name, weight in captioner.state_dict().items())
    merged = Captioner.from_pretrained(tmp_path)
    assert merged.state_dict().keys() == random_captioner().state_dict().keys()
    ids, embeddings = torch.randint(0, 299, (8, 6)), torch.randn(8, 32)
    one, other = (each(ids, embeddings=embeddings).logits for each in (captioner, merged))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert torch.equal(captioner.generate(embeddings), merged.generate(embeddings))
    plain, found = (each.gpt2.transformer.state_dict() for each in (random_captioner(), merged))
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_proj")
    changed = {name for name, weight in found.items() if not torch.equal(weight, plain[name])}
    assert changed == {f"h.{block}.{layer}.weight" for block in range(3) for layer in layers}
    assert merged.gpt2.lm_head.weight is merged.gpt2.transformer.wte.weight


def test_without_adapters_the_merged_tensors_are_the_models_own():
    captioner = random_captioner()
    state = merged_state(captioner)
    assert state.keys() == captioner.state_dict().keys()
    assert all(torch.equal(weight, captioner.state_dict()[name]) for name, weight in state.items())


@pytest.mark.parametrize("embeddings", [False, True])
def test_the_table_shows_what_trains_and_what_it_costs(embeddings):
    table = freezing_table(adapted(embeddings=embeddings).gpt2).set_index("module")
    block, total = table.loc["h.0"], table.loc["total"]
    own = 4 * (48 + 144) + 4 * (48 + 48) + 4 * (192 + 48)  # rank * (in + out) of c_attn and the two of c_proj
    tables = (300 + 64) * 48 if embeddings else 0
    assert (block.trains, block.tensors, block.trained) == ("partly", 12 + 6, own)
    assert list(table.trains[["wte", "wpe", "ln_f"]]) == [*(["yes", "yes"] if embeddings else ["no", "no"]), "no"]
    assert (total.trained, total.optimizer_bytes) == (3 * own + tables, 8 * (3 * own + tables))
    assert total.share == pytest.approx((3 * own + tables) / total.parameters)
    assert total.parameters == 3 * own + sum(weight.numel() for weight in random_captioner().gpt2.parameters())


def test_only_what_trains_goes_into_a_checkpoint_and_to_the_optimizer():
    captioner = adapted()
    names = {name for name in trained_tensors(captioner) if name.startswith("gpt2.")}
    assert len(names) == 18
    assert all(".lora_" in name for name in names)
    groups = parameter_groups(captioner, Config(freezing="lora"))
    assert [len(group["params"]) for group in groups if group["rate"] == "gpt2_lr"] == [18, 0]


def test_dropout_rests_with_what_is_frozen_alone():
    captioner = adapted(dropout=0.5).train()
    resting = {name for name, module in captioner.named_modules() if not module.training}
    assert {"clip", "gpt2.transformer.wte", "gpt2.transformer.h.0.mlp.c_fc"} <= resting
    assert not resting & {"gpt2.transformer.h.0", "gpt2.transformer.h.0.attn.c_attn", "gpt2.transformer.drop"}


@pytest.mark.parametrize("rank", [49, 1000])
def test_a_rank_that_cannot_be_is_named(rank):
    with pytest.raises(UserError, match=f"lora_rank is {rank}, but must be between 1 and 48, the width of this lang"):
        adapted(rank=rank)


@pytest.mark.parametrize("policy", ["lora", "first-and-last"])
def test_a_gpt2_that_has_adapters_is_not_frozen_again(policy):
    captioner = adapted()
    with pytest.raises(UserError, match="has LoRA adapters already: load it again"):
        freeze(captioner.gpt2, Config(freezing=policy))


def test_without_peft_it_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def missing(name, *others):
        if name == "peft":
            raise ImportError(name)
        return real(name, *others)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match="freezing is 'lora', which needs the library peft: pip install peft"):
        adapted()
