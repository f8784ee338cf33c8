"""Numbers that are not finite end a training, damaged files are passed over, and one process trains at a time."""

import json
import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from helpers.errors import UserError
from helpers.runtime.files import only_one
from helpers.training.checkpoint import best_of, checkpoints
from helpers.training.loop import train, train_or_load
from helpers.training.loss import CaptionLoss
from helpers.training.optimizer import Parts
from helpers.training.run import Run
from helpers.training.session import SKIPPED, Finite

NAN, INF = math.nan, math.inf


@pytest.fixture
def start(config, data, cache, tmp_path):
    """Return a function that trains the run of `config`, with any values changed, in this test's folder."""

    def training(folder=tmp_path / "run", max_steps=None, parts=None, captions=data.captions, **values) -> Run:
        changed = config.with_values(**values)
        return train(changed, captions, cache.folder, out=folder, resume=True, max_steps=max_steps, parts=parts)

    return training


@pytest.fixture
def copy(finished, tmp_path) -> Run:
    """Return a copy of the finished run, to be damaged."""
    return Run(shutil.copytree(finished.folder, tmp_path / "run"))


class Poisoned(CaptionLoss):
    """The loss, which is not a number from the sixth batch on; the third to the fifth are those of the rehearsal."""

    seen = 0

    def forward(self, packed):
        loss = super().forward(packed)
        Poisoned.seen += self.training
        return loss * NAN if Poisoned.seen > 10 and self.training else loss


class SteepGradient(CaptionLoss):
    """The loss with an endless gradient from some step on."""

    seen = 0

    def forward(self, packed):
        loss = super().forward(packed)
        SteepGradient.seen += self.training
        if SteepGradient.seen > 10 and self.training:
            loss.register_hook(lambda gradient: gradient * INF)
        return loss


@pytest.mark.parametrize(
    ("kind", "says"), [(Poisoned, "the loss is nan"), (SteepGradient, r"the gradient's norm is (nan|inf)")]
)
def test_the_first_step_that_is_not_finite_ends_a_training(start, kind, says):
    kind.seen = 0
    wanted = rf"{says} at step 7, with lr [\d.e-]+ and gpt2_lr [\d.e-]+: training ends here, and \S+step-00000004 still"
    if kind is Poisoned:
        wanted = rf"{says} and the gradient's norm is nan at step 7, with lr"
    with pytest.raises(UserError, match=wanted) as caught:
        start(parts=Parts(loss=kind))
    assert "\n" not in str(caught.value)


def test_what_was_good_before_stays_and_is_what_goes_on(start, finished, tmp_path):
    Poisoned.seen = 0
    with pytest.raises(UserError, match="step-00000004 still stands; the usual way out is a new run"):
        start(parts=Parts(loss=Poisoned))
    run = Run(tmp_path / "run")
    assert [path.name for path in checkpoints(run.checkpoints)] == ["step-00000004"]
    assert not run.captioner.exists()
    assert list(run.history().step) == [3, 4, 6]
    start()
    assert list(run.history().loss) == list(finished.history().loss)


def test_before_the_first_checkpoint_there_is_none(start):
    with pytest.raises(UserError, match=r"at step \d+, with .*: training ends here, and there is no checkpoint yet"):
        start(mapper_lr=1e30, gpt2_lr=1e30, warmup=0.0, eval_every=99)


def test_a_validation_that_is_not_finite_is_not_saved(start, monkeypatch, tmp_path):
    monkeypatch.setattr("helpers.training.loop.validation_loss", lambda *_, **__: NAN)
    with pytest.raises(UserError, match=r"the validation loss is nan at step 4, with lr .* there is no checkpoint yet"):
        start()
    assert not checkpoints(tmp_path / "run" / "checkpoints")


def finite(scaler: object | None, tmp_path) -> tuple[Finite, SimpleNamespace]:
    groups = [{"rate": "lr", "lr": 0.1}, {"rate": "gpt2_lr", "lr": 0.2}]
    learner = SimpleNamespace(
        accelerator=SimpleNamespace(scaler=scaler), optimizer=SimpleNamespace(param_groups=groups)
    )
    return Finite(Run(tmp_path), learner), learner


def test_a_gradient_scaler_may_skip_steps_but_not_forever(tmp_path):
    check, learner = finite(object(), tmp_path)
    for step, norm in enumerate([INF, NAN, 1.0, *[INF] * SKIPPED], start=1):
        learner.norm = torch.tensor(norm)
        check.add(step, torch.tensor(1.0))
    check.check()
    learner.norm = torch.tensor(INF)
    check.add(99, torch.tensor(1.0))
    with pytest.raises(UserError, match=r"the gradient's norm is inf at step 99, with lr 0.1 and gpt2_lr 0.2"):
        check.check()
    learner.norm = torch.tensor(1.0)
    check.add(100, torch.tensor(NAN))
    with pytest.raises(UserError, match="the loss is nan at step 100"):
        check.check()


def test_no_nan_wins_the_best(copy):
    first = checkpoints(copy.checkpoints)[0]
    state = json.loads((first / "state.json").read_text())
    for value in (NAN, "0.1", [], True, -INF):
        (first / "state.json").write_text(json.dumps({**state, "val_loss": value}))
        assert best_of([first]) is None
        assert best_of(checkpoints(copy.checkpoints)) not in (None, first)


@pytest.mark.parametrize("file", ["model", "optimizer"])
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_checkpoint_with_a_number_that_is_not_finite_is_passed_over(start, copy, finished, capfd, file, value):
    newest = checkpoints(copy.checkpoints)[-1] / f"{file}.safetensors"
    tensors = load_file(newest)
    name = next(name for name in tensors if "mapper.output.weight" in name)
    tensors[name].view(-1)[3] = value
    save_file(tensors, newest)
    start()
    said = capfd.readouterr().err
    assert f"step-00000016 is damaged ({name} is not finite) and is passed over" in said
    assert load_file(newest)[name].isfinite().all()
    assert list(copy.history().loss) == list(finished.history().loss)


DAMAGES = {
    "state of another type": lambda path: (path / "state.json").write_text("[]"),
    "state without its step": lambda path: (path / "state.json").write_text('{"elapsed": 1.0}'),
    "state of another step": lambda path: (path / "state.json").write_text('{"step": 3}'),
    "state with words": lambda path: (path / "state.json").write_text('{"step": 16, "elapsed": "long", "meter": {}}'),
    "state with a wrong meter": lambda path: (path / "state.json").write_text('{"step": 16, "meter": {"loss": []}}'),
    "state with a negative meter": lambda path: change_state(path, meter={"loss": 1.0, "steps": -1}),
    "state with half a step": lambda path: change_state(path, meter={"loss": 1.0, "steps": 0.5}),
    "state with a scaler of words": lambda path: change_state(path, scaler={"scale": "large"}),
    "state in other bytes": lambda path: (path / "state.json").write_bytes(b"\xff\xfe{"),
    "state nested deep": lambda path: (path / "state.json").write_text("[" * 100_000),
    "moments of nothing": lambda path: save_file({"x": torch.zeros(1)}, path / "optimizer.safetensors"),
    "moments of other names": lambda path: save_file({"x/exp_avg": torch.zeros(1)}, path / "optimizer.safetensors"),
    "moments of other shapes": lambda path: change_moments(path, lambda name, value: {name: torch.zeros(3)}),
    "moments in half precision": lambda path: change_moments(path, lambda name, value: {name: value.half()}),
    "moments that are negative": lambda path: change_moments(
        path, lambda name, value: {name: -value - 1 if name.endswith("exp_avg_sq") else value}
    ),
    "steps that are negative": lambda path: change_moments(
        path, lambda name, value: {name: -value if name.endswith("/step") else value}
    ),
    "moments that lack steps": lambda path: change_moments(
        path, lambda name, value: {} if name.endswith("/step") else {name: value}
    ),
}


def change_state(path, **values) -> None:
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | values))


def change_moments(path, change) -> None:
    file = path / "optimizer.safetensors"
    save_file({key: each for name, value in load_file(file).items() for key, each in change(name, value).items()}, file)


def test_weights_of_another_type_are_passed_over(start, copy, capfd):
    file = checkpoints(copy.checkpoints)[-1] / "model.safetensors"
    save_file({name: tensor.to(torch.int32) for name, tensor in load_file(file).items()}, file)
    start(max_steps=1)
    assert "is torch.int32, not torch.float32) and is passed over" in capfd.readouterr().err


def test_weights_that_the_last_step_of_a_session_broke_are_not_saved(start, tmp_path):
    def broken_at_the_fifth(step, total_steps, *, peak, warmup):
        return 1e39 if step == 4 else peak

    with pytest.raises(UserError, match=r"is not finite after step 5, of which no checkpoint is saved: .*lower learn"):
        start(parts=Parts(schedule=broken_at_the_fifth), max_steps=5)
    run = Run(tmp_path / "run")
    assert [path.name for path in checkpoints(run.checkpoints)] == ["step-00000004"]
    assert not run.captioner.exists()


def test_a_run_goes_on_in_another_precision(start, copy, capfd):
    """A GPU that computes in float16 leaves a scaler's state, which a CPU has no use for."""
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3}
    change_state(checkpoints(copy.checkpoints)[-1], scaler=scaler)
    shutil.rmtree(copy.captioner)
    start()
    assert "passed over" not in capfd.readouterr().err
    assert copy.captioner.exists()
    shutil.rmtree(checkpoints(copy.checkpoints)[-1])
    change_state(checkpoints(copy.checkpoints)[-1], scaler=scaler)
    start(max_steps=1)


def test_a_checkpoint_behind_the_end_of_the_run_is_named(start, copy):
    last = checkpoints(copy.checkpoints)[-1]
    change_state(last, step=99)
    last.rename(last.with_name("step-00000099"))
    with pytest.raises(UserError, match="step-00000099 is behind the last of the run's 16 steps: move it away"):
        start()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_in_words(start, copy, capfd, damage):
    DAMAGES[damage](checkpoints(copy.checkpoints)[-1])
    start(max_steps=1)
    said = capfd.readouterr().err
    assert "step-00000016 is " in said
    assert "and is passed over" in said
    assert "Traceback" not in said


def test_damaged_records_lose_only_the_damaged_lines(start, copy, finished, capfd):
    steps = list(finished.history().step)
    history, samples = copy.history_file.read_bytes().split(b"\n"), copy.samples_file.read_bytes().split(b"\n")
    history[2:2] = [b"\xff\x00garbage", b"4,nan,nan,nan,nan,nan,nan,nan", b"a,b,c", b"1,2"]
    samples[1:1] = [b"[]", b'{"step": "4", "captions": {}}', b'{"step": 5}', b"[" * 100_000, b"\xff"]
    copy.history_file.write_bytes(b"\n".join(history))
    copy.samples_file.write_bytes(b"\n".join(samples))
    assert list(copy.history().step) == steps
    assert copy.samples().equals(finished.samples())
    start()
    said = capfd.readouterr().err
    assert f"4 lines of {copy.history_file} are damaged and are dropped" in said
    assert f"5 lines of {copy.samples_file} are damaged and are dropped" in said
    assert copy.history_file.read_bytes() == finished.history_file.read_bytes()
    assert copy.samples_file.read_bytes() == finished.samples_file.read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"config": [], "data": {}}',
        '{"config": {}, "data": []}',
        '{"config": {"epochs": "x"}, "data": {}}',
        '{"config": {"epochs": 2.5}, "data": {}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_config_of_a_run_is_named(start, copy, content):
    copy.config_file.write_text(content)
    with pytest.raises(
        UserError,
        match=r"is no run's config.json: name the folder of a run, or a new one|epochs is .*, but must be a value",
    ):
        start()


def test_the_checkpoint_stands_when_the_captioner_finds_no_room(start, finished, monkeypatch):
    def full(*_given, **_named):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("helpers.models.captioner.Captioner.save_pretrained", full)
        with pytest.raises(
            UserError, match=r"no captioner could be written to .*no space left.*: its checkpoint stands"
        ):
            start()
    run = start()
    assert checkpoints(run.checkpoints)[-1].name == "step-00000016"
    assert all(
        torch.equal(tensor, load_file(finished.captioner / "model.safetensors")[name])
        for name, tensor in load_file(run.captioner / "model.safetensors").items()
    )


def test_a_best_checkpoint_that_is_damaged_costs_no_traceback(start, copy, capfd):
    first, last = checkpoints(copy.checkpoints)[0], checkpoints(copy.checkpoints)[-1]
    for path, loss in ((first, 0.0), (last, 1.0)):
        state = json.loads((path / "state.json").read_text())
        (path / "state.json").write_text(json.dumps({**state, "val_loss": loss}))
    (first / "model.safetensors").write_bytes(b"cut")
    shutil.rmtree(copy.best_captioner, ignore_errors=True)
    start()
    assert "so there is no captioner-best" in capfd.readouterr().err


def test_one_process_trains_into_a_folder_at_a_time(start, tmp_path):
    with (
        only_one(tmp_path / "run", "training"),
        pytest.raises(UserError, match=r"another process is training in .*run: wait for it, or stop it"),
    ):
        start()
    assert not (tmp_path / "run").exists()
    start(max_steps=1)


def test_two_notebooks_train_one_after_the_other(config, data, cache, tmp_path, capfd, monkeypatch):
    import threading
    import time

    monkeypatch.setattr("helpers.runtime.files.PATIENCE", 0.1)
    held = threading.Event()

    def hold() -> None:
        with only_one(tmp_path / "run", "training"):
            held.set()
            time.sleep(1)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    run, _writer = train_or_load(config.with_values(epochs=1), data, cache, out=tmp_path / "run")
    holder.join()
    assert run.captioner.exists()
    assert "waiting for another process, which is training in" in capfd.readouterr().err


def test_pictures_that_go_away_cost_a_training_nothing(config, data, cache, tmp_path, finished):
    images = shutil.copytree(data.images, tmp_path / "pictures")
    moved = type(data)(images, data.captions, data.left_out, data.uncaptioned, data.facts)

    def remove(_history) -> None:
        shutil.rmtree(images, ignore_errors=True)

    run, _writer = train_or_load(config, moved, cache, out=tmp_path / "run", watch=remove)
    assert list(run.history().loss) == list(finished.history().loss)


def test_a_cache_cut_in_training_is_one_line_and_the_checkpoint_stands(config, data, patches, tmp_path):
    folder = shutil.copytree(patches.folder, tmp_path / "patches")

    def cut(_history) -> None:
        for shard in folder.glob("shard-*"):
            with shard.open("r+b") as file:
                file.truncate(4096)

    with pytest.raises(UserError, match=r"shard-00000.safetensors was cut while it was in use"):
        train(
            config.with_values(pooling="patches", mapper="queries"), data.captions, folder, out=tmp_path / "run",
            watch=cut,
        )  # fmt: skip
    with pytest.raises(UserError, match="is broken"):
        train(config.with_values(pooling="patches", mapper="queries"), data.captions, folder, out=tmp_path / "run",
              resume=True)  # fmt: skip
