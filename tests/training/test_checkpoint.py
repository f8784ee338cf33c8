import pytest
import torch
from small_models import learn, random_captioner

from helpers.config import Config
from helpers.errors import UserError
from helpers.language.freezing import freeze
from helpers.training.checkpoint import checkpoints, load_newest, save_checkpoint, trained_tensors


def trained(seed=0, steps=2, **config):
    """A captioner and its AdamW optimizer after some steps."""
    captioner = random_captioner(seed, **config)
    freeze(captioner.gpt2, Config())
    optimizer = torch.optim.AdamW([p for p in captioner.parameters() if p.requires_grad], lr=0.01)
    learn(captioner, optimizer, steps, seed=5)
    return captioner, optimizer


def test_loaded_it_goes_on_to_the_bit(tmp_path):
    captioner, optimizer = trained()
    captioner.prepare_for(torch.randn(10, 32))
    save_checkpoint(tmp_path, captioner, optimizer, step=2, state={"meter": {"loss": 0.1 + 0.2, "steps": 1}})
    again, its_optimizer = trained(seed=0, steps=0)
    state, passed_over = load_newest(tmp_path, again, its_optimizer)
    assert state == {"step": 2, "meter": {"loss": 0.1 + 0.2, "steps": 1}}
    assert passed_over == []
    learn(captioner, optimizer, 3, seed=5)
    learn(again, its_optimizer, 3, seed=5)
    for (name, one), other in zip(captioner.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_it_holds_only_what_trains(tmp_path):
    captioner, optimizer = trained()
    path = save_checkpoint(tmp_path, captioner, optimizer, step=2, state={})
    assert not [name for name in trained_tensors(captioner) if name.startswith(("clip.", "gpt2.transformer.h.1."))]
    assert sorted(file.name for file in path.iterdir()) == ["model.safetensors", "optimizer.safetensors", "state.json"]


def test_only_the_newest_are_kept(tmp_path):
    captioner, optimizer = trained()
    for number in (5, 10, 100, 1000):
        save_checkpoint(tmp_path, captioner, optimizer, step=number, state={}, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000100", "step-00001000"]


@pytest.mark.parametrize("broken", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "gone"])
def test_a_broken_one_is_passed_over_with_a_word(tmp_path, broken, damage):
    captioner, optimizer = trained()
    save_checkpoint(tmp_path, captioner, optimizer, step=1, state={})
    file = save_checkpoint(tmp_path, captioner, optimizer, step=2, state={}) / broken
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: 10 if damage == "cut" else 0])
    (tmp_path / ".step-00000003.partial").mkdir()
    state, passed_over = load_newest(tmp_path, captioner, optimizer)
    assert state == {"step": 1}
    assert [line.split(" (")[0] for line in passed_over] == [
        ".step-00000003.partial was half written and has been removed",
        f"{tmp_path / 'step-00000002'} is not whole",
    ]


def test_without_any_there_is_no_state(tmp_path):
    captioner, optimizer = trained()
    assert load_newest(tmp_path / "nowhere", captioner, optimizer) == (None, [])


@pytest.mark.parametrize("other", [{"prefix_length": 5}, {"mapper": "mlp"}])
def test_one_of_another_model_is_refused_by_name(tmp_path, other):
    captioner, optimizer = trained()
    save_checkpoint(tmp_path, captioner, optimizer, step=1, state={})
    with pytest.raises(UserError, match=r"is of another model: mapper\.\S+ is .*; use the config it was trained with"):
        load_newest(tmp_path, *trained(steps=0, **other))


def test_one_with_adapters_of_another_rank_is_refused(tmp_path):
    def adapted(rank):
        captioner = random_captioner()
        freeze(captioner.gpt2, Config(freezing="lora", lora_rank=rank))
        return captioner, torch.optim.AdamW([p for p in captioner.parameters() if p.requires_grad])

    save_checkpoint(tmp_path, *adapted(4), step=1, state={})
    assert load_newest(tmp_path, *adapted(4))[0] == {"step": 1}
    with pytest.raises(UserError, match=r"lora_A\.default\.weight is \[4, 48\] there, \[8, 48\] here; use the config"):
        load_newest(tmp_path, *adapted(8))


def test_a_full_disk_leaves_the_ones_before(tmp_path, monkeypatch):
    captioner, optimizer = trained()
    save_checkpoint(tmp_path, captioner, optimizer, step=1, state={})

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("helpers.training.checkpoint.save_file", full)
    with pytest.raises(UserError, match=r"no checkpoint of step 2 .*no space left.*still stand; make room"):
        save_checkpoint(tmp_path, captioner, optimizer, step=2, state={})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_broken_later_one_is_not_kept_in_place_of_a_whole_one(tmp_path):
    captioner, optimizer = trained()
    save_checkpoint(tmp_path, captioner, optimizer, step=2, state={})
    (save_checkpoint(tmp_path, captioner, optimizer, step=20, state={}) / "model.safetensors").write_bytes(b"")
    save_checkpoint(tmp_path, captioner, optimizer, step=3, state={}, keep=1)  # a session that resumed from step 2
    assert load_newest(tmp_path, captioner, optimizer)[0] == {"step": 3}
    save_checkpoint(tmp_path, captioner, optimizer, step=20, state={}, keep=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000020"]
