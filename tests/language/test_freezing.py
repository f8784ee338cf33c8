import pytest
import torch
from small_models import random_captioner
from transformers import GPT2Config, GPT2LMHeadModel

from helpers.config import Config
from helpers.errors import UserError
from helpers.language.freezing import freeze, freezing_table, trained_modules
from helpers.language.language_model import find_parts


@pytest.fixture(scope="module")
def gpt2_small():
    """GPT-2 small's architecture on the meta device, which uses no memory for the weights."""
    with torch.device("meta"):
        gpt2 = GPT2LMHeadModel(GPT2Config())
    gpt2.tie_weights()  # not every version does this on the meta device
    return gpt2


def test_first_and_last_are_the_fourteen_tensors_on_either_end(gpt2_small):
    """The original trained list(parameters())[:14] and [-14:] and called them layers."""
    freeze(gpt2_small, Config())
    parameters = list(gpt2_small.parameters())
    assert len(parameters) == 148
    assert [p.requires_grad for p in parameters] == [True] * 14 + [False] * 120 + [True] * 14
    total = freezing_table(gpt2_small).iloc[-1]
    assert (total.trained, total.parameters) == (53_561_088, 124_439_808)
    assert total.optimizer_bytes == 8 * 53_561_088


@pytest.mark.parametrize(
    ("policy", "modules"),
    [
        ("full", ["wte", "wpe", "h.0", "h.1", "h.2", "ln_f"]),
        ("frozen", []),
        ("first-and-last", ["wte", "wpe", "h.0", "h.2", "ln_f"]),
        ("last-n", ["wte", "wpe", "h.1", "h.2", "ln_f"]),
    ],
)
def test_the_table_says_what_trains(policy, modules):
    gpt2 = random_captioner().gpt2
    freeze(gpt2, Config(freezing=policy, last_n=2))
    table = freezing_table(gpt2).iloc[:-1]
    assert list(table.module[table.trains == "yes"]) == modules
    assert set(table.trains) <= {"yes", "no"}
    assert table.parameters.sum() == sum(p.numel() for p in gpt2.parameters())
    assert table.share.sum() == pytest.approx(freezing_table(gpt2).share.iloc[-1])


def names(blocks=3, **choices) -> list[str]:
    """Return the names of the modules of a GPT-2 that train."""
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=blocks, n_head=1))
    return list(trained_modules(Config(**choices), find_parts(gpt2)))


def test_embeddings_are_a_choice_of_their_own():
    assert names(train_embeddings=False) == ["h.0", "h.2", "ln_f"]
    assert names(freezing="last-n", last_n=1, train_embeddings=False) == ["h.2", "ln_f"]


def test_a_single_block_is_first_and_last_at_once():
    assert names(blocks=1) == ["wte", "wpe", "h.0", "ln_f"]


@pytest.mark.parametrize("last_n", [4, 9])
def test_last_n_must_fit(last_n):
    with pytest.raises(UserError, match=rf"last_n is {last_n}, but this language model has 3 blocks: choose 1 to 3"):
        names(freezing="last-n", last_n=last_n)


def test_what_is_frozen_rests_and_learns_nothing():
    captioner = random_captioner(dropout=0.5)
    freeze(captioner.gpt2, Config())
    captioner.train()
    resting = {name for name, module in captioner.named_modules() if not module.training}
    assert {"clip", "gpt2.transformer.h.1", "gpt2.transformer.h.1.attn.attn_dropout"} <= resting
    assert not resting & {"mapper", "gpt2.transformer.h.0", "gpt2.transformer.h.2", "gpt2.transformer.drop"}

    before = {name: weight.clone() for name, weight in captioner.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in captioner.parameters() if p.requires_grad], lr=0.01)
    ids = torch.randint(0, 299, (4, 6))
    captioner(ids, embeddings=torch.randn(4, 32), labels=ids).loss.backward()
    optimizer.step()
    moved = {name for name, weight in captioner.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name, weight in captioner.named_parameters() if weight.requires_grad}
    assert len(optimizer.state) == len(moved)
    assert all(weight.grad is None for weight in captioner.parameters() if not weight.requires_grad)
