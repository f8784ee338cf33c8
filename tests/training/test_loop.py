"""A run interrupted anywhere ends in the same bits as an uninterrupted one, and a wrong start is refused."""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import replace

import child
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.data.build_cache import build_cache, open_cache
from helpers.errors import UserError
from helpers.models.loading import load_encoder
from helpers.models.writer import CaptionWriter
from helpers.runtime.model_folders import TINY
from helpers.training.checkpoint import checkpoints, save_checkpoint
from helpers.training.estimate import Plan
from helpers.training.loop import train
from helpers.training.loss import CaptionLoss
from helpers.training.run import HISTORY, Run
from helpers.training.session import Stop, stop_on_signals

TIMED = ["captions_per_second", "elapsed_seconds"]  # times differ from run to run


def same_bits(run: Run, other: Run) -> bool:
    """Return whether two runs ended in the same history, checkpoint and captioner."""
    one, two = (each.history().drop(columns=TIMED) for each in (run, other))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    newest = [checkpoints(each.checkpoints)[-1] for each in (run, other)]
    assert newest[0].name == newest[1].name
    files = [(folder / name for folder in newest) for name in ("model.safetensors", "optimizer.safetensors")]
    files.append(each.captioner / "model.safetensors" for each in (run, other))
    for pair in files:
        first, second = (load_file(file) for file in pair)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    return True


@pytest.fixture
def start(config, data, cache, tmp_path):
    """Return a function that trains the run of `config`, with any values changed, in this test's folder."""

    def training(captions=data.captions, at=cache.folder, folder=tmp_path / "run", resume=True, watch=None,
                 max_steps=None, max_hours=None, tracker=None, **values) -> Run:  # fmt: skip
        changed = config.with_values(**values)
        return train(
            changed, captions, at, out=folder, resume=resume, max_steps=max_steps, max_hours=max_hours, watch=watch,
            tracker=tracker,
        )  # fmt: skip

    return training


def test_a_run_folder_holds_what_it_should(finished, config, data):
    history = finished.history()
    steps = -(-5 * len(data.image_names("train")) // 32) * 2
    assert steps % 4 == 0
    assert list(history.columns) == HISTORY
    assert list(history.step) == sorted({*range(3, steps + 1, 3), *range(4, steps + 1, 4), steps})
    measured = history.step.isin([*range(4, steps + 1, 4), steps])
    assert (history.val_loss.notna() == measured).all()
    assert history.epoch.iloc[-1] == config.epochs
    assert (history.lr.max(), history.gpt2_lr.max()) <= (config.mapper_lr, config.gpt2_lr)
    assert history.notna().drop(columns="val_loss").all(axis=None)
    assert (history.elapsed_seconds.diff().dropna() >= 0).all()
    best = history.step[history.val_loss.idxmin()]
    assert [int(path.name[-8:]) for path in checkpoints(finished.checkpoints)] == sorted({best, steps - 4, steps})
    assert finished.best_captioner.exists() == (best != steps)
    assert list(finished.samples().index) == list(history.step[measured])
    assert list(finished.samples().columns) == data.image_names("val")[:4]
    assert Plan.read(finished.plan_file).total == steps
    assert finished.figure.read_bytes().startswith(b"\x89PNG")
    assert not list(finished.folder.rglob(".*"))
    modes = {path.stat().st_mode & 0o777 for path in finished.folder.rglob("*") if path.is_file()}
    assert len(modes) == 1, f"some files are open to fewer people than others: {sorted(map(oct, modes))}"


def test_the_loss_falls(start, data):
    few = data.captions.groupby("split").head(10)
    history = start(captions=few, epochs=30, batch_size=10).history()
    assert history.loss.iloc[-1] < 0.5 * history.loss.iloc[0]


@pytest.mark.parametrize("cuts", [[4], [1, 2, 6]])
def test_stopped_and_resumed_it_ends_in_the_same_bits(start, finished, cuts):
    for steps in cuts:
        run = start(max_steps=steps)
        assert run.captioner.exists()
    assert checkpoints(run.checkpoints)[-1].name == f"step-{sum(cuts):08d}"
    assert same_bits(start(), finished)


def test_a_run_that_goes_on_with_other_pictures_says_so(start, data, config, tmp_path, capsys):
    images = tmp_path / "photos"
    shutil.copytree(data.images, images)
    own, folder = replace(data, images=images), tmp_path / "embeddings"
    start(at=open_cache(own, config, folder).folder, max_steps=2)
    start(at=open_cache(own, config, folder).folder, max_steps=2)
    assert "have changed since it began" not in capsys.readouterr().err
    names = data.image_names("train")
    shutil.copy(data.images / names[1], images / names[0])
    run = start(at=open_cache(own, config, folder).folder, max_steps=2)
    said = capsys.readouterr().err
    assert f"pictures of {run.folder} have changed since it began: it goes on with those of now" in said


@pytest.mark.parametrize("mapper", ["encoder", "queries"])
def test_on_patches_too_it_ends_in_the_same_bits(start, patches, tmp_path, mapper):
    values = {"at": patches.folder, "pooling": "patches", "mapper": mapper, "epochs": 1}
    for steps in (3, None):
        run = start(folder=tmp_path / "cut", max_steps=steps, **values)
    assert same_bits(run, start(folder=tmp_path / "whole", **values))
    assert CaptionWriter.load(run.captioner).captioner.config.pooling == "patches"


@pytest.mark.parametrize("embeddings", [False, True])
def test_with_adapters_too_it_ends_in_the_same_bits(start, data, cache, tmp_path, embeddings):
    values = {"freezing": "lora", "lora_rank": 4, "train_embeddings": embeddings, "epochs": 1}
    for steps in (3, None):
        run = start(folder=tmp_path / "cut", max_steps=steps, **values)
    whole = start(folder=tmp_path / "whole", **values)
    assert same_bits(run, whole)
    saved = {name for name in load_file(checkpoints(run.checkpoints)[-1] / "model.safetensors") if "gpt2." in name}
    tables = {"gpt2.transformer.wte.weight", "gpt2.transformer.wpe.weight"}
    assert {name for name in saved if ".lora_" not in name} == (tables if embeddings else set())
    with pytest.raises(UserError, match="holds a run with lora_rank 4, here it is 8"):
        start(folder=tmp_path / "whole", **{**values, "lora_rank": 8})

    writer, names = CaptionWriter.load(run.captioner), data.image_names("val")
    assert not [name for name in writer.captioner.state_dict() if "lora" in name or "base_layer" in name]
    written = dict(zip(names, writer.write(cache.rows(names)), strict=True))
    assert run.samples().iloc[-1].to_dict() == {name: written[name] for name in names[:4]}


def test_the_best_of_a_run_with_adapters_is_saved_merged(start, cache, data, config):
    values = {"freezing": "lora", "train_embeddings": False, "epochs": 1}
    best, last = checkpoints(start(**values).checkpoints)
    state = json.loads((best / "state.json").read_text())
    (best / "state.json").write_text(json.dumps({**state, "val_loss": 0.0}))  # whatever the measured loss was
    saved = CaptionWriter.load(start(**values).best_captioner)
    live = CaptionWriter.assemble(config.with_values(**values), load_encoder("tiny"))
    live.captioner.load_state_dict(load_file(best / "model.safetensors"), strict=False)
    live.captioner.eval()
    ids, rows = torch.randint(0, 300, (4, 9)), cache.rows(data.image_names("val"))
    of_saved, of_live = (each.captioner(ids, embeddings=rows[:4]).logits for each in (saved, live))
    torch.testing.assert_close(of_saved, of_live, atol=1e-5, rtol=1e-5)
    assert saved.write(rows) == live.write(rows)
    live.captioner.load_state_dict(load_file(last / "model.safetensors"), strict=False)
    assert not torch.allclose(of_saved, live.captioner(ids, embeddings=rows[:4]).logits, atol=1e-3)


def test_a_finished_run_is_left_alone(start, finished, config):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*.safetensors")}
    seen = []
    start(folder=finished.folder, watch=seen.append)
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*.safetensors")} == before
    assert len(seen) == 1


def test_a_kill_before_the_end_leaves_no_older_captioner_for_the_finished_one(start, finished, monkeypatch):
    """Do not mistake the captioner of a session that stopped early for that of the finished run."""
    start(max_steps=2)

    def killed(*given, step, **named):
        if step > 12:
            raise KeyboardInterrupt
        return save_checkpoint(*given, step=step, **named)

    monkeypatch.setattr("helpers.training.loop.save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        start()
    monkeypatch.undo()
    assert same_bits(start(), finished)


def test_watch_sees_the_history_grow(start):
    seen = []
    start(watch=lambda history: seen.append(list(history.step)), epochs=1)
    assert seen == [seen[-1][: n + 1] for n in range(len(seen))]


def test_it_stops_when_its_hours_are_over(start):
    run = start(max_hours=1e-9)
    assert [path.name for path in checkpoints(run.checkpoints)] == ["step-00000001"]


@pytest.fixture
def spawn(config, data, cache, tmp_path):
    """Return a function that trains in its own process and returns it, with an event set when the history begins."""

    def process():
        context = multiprocessing.get_context("fork")
        began = context.Event()
        work = context.Process(target=child.train, args=(config, data, cache.folder, tmp_path / "run", began))
        work.start()
        return work, began

    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_stops(start, spawn, finished, tmp_path, number):
    before = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    work, began = spawn()
    signal.signal(number, before)
    assert began.wait(60)
    os.kill(work.pid, number)
    work.join(60)
    assert work.exitcode == 0
    run = Run(tmp_path / "run")
    assert run.captioner.exists()
    newest, last = (checkpoints(each.checkpoints)[-1].name for each in (run, finished))
    assert "step-00000003" <= newest < last
    assert same_bits(start(), finished)


def test_under_nohup_a_closed_terminal_stops_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop(None, None)
    with stop_on_signals(stop):
        signal.raise_signal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, before)
    assert stop.reason() is None


def test_sigkill_at_any_moment_costs_nothing_but_time(start, spawn, finished, tmp_path):
    moments = random.Random(0)
    for _ in range(20):  # also while the checkpoint, the history or the captioner is being saved
        work, _began = spawn()
        time.sleep(moments.uniform(0.2, 1.8))
        work.kill()
        work.join(60)
    assert same_bits(start(), finished)
    assert not list((tmp_path / "run").rglob(".*"))


def test_a_taken_folder_is_refused_without_resume(start, finished, tmp_path):
    with pytest.raises(UserError, match=r"finished already holds a run: go on with it by --resume, or name another"):
        start(resume=False, folder=finished.folder)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file: name a folder for the run"):
        start(folder=tmp_path / "file")
    with pytest.raises(UserError, match=r"config\.json is no run's config.json: name the folder of a run"):
        start(folder=TINY / "clip")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mapper": "mlp"}, "holds a run with mapper 'encoder', here it is 'mlp'"),
        ({"epochs": 3}, "holds a run with epochs 2, here it is 3"),
        ({"seed": 1}, "holds a run with seed 0, here it is 1"),
    ],
)
def test_another_config_is_refused_by_the_name_of_its_field(start, finished, values, message):
    with pytest.raises(UserError, match=message):
        start(folder=finished.folder, **values)


def test_other_data_are_refused(start, finished, data):
    training = data.captions.index[data.captions.split == "train"]
    wanted = f"holds a run with captions {len(training)}, here it is {len(training) - 1}: .* use that value, or name"
    with pytest.raises(UserError, match=wanted):
        start(folder=finished.folder, captions=data.captions.drop(index=training[0]))
    with pytest.raises(UserError, match="holds a run with sha256"):
        start(folder=finished.folder, captions=data.captions.assign(caption=data.captions.caption.str.upper()))


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_is_named(start, data, split, tmp_path):
    with pytest.raises(
        UserError, match=f"no caption is in split '{split}', but training needs some in train and in val"
    ):
        start(captions=data.captions[data.captions.split != split])
    assert not (tmp_path / "run").exists()


def test_what_is_left_out_is_said(start, data, cache, tmp_path, capfd):
    stranger = pd.DataFrame({"image_name": ["\x1b[31mno.png"], "caption": ["A dog."], "split": ["train"]})
    start(captions=pd.concat([data.captions, stranger]), max_steps=1, max_caption_tokens=4)
    said = capfd.readouterr().err
    assert "train: 1 images have no embedding and are left out, such as \\x1b[31mno.png" in said
    assert "captions are cut at 4 tokens, such as" in said
    assert "computing on cpu in fp32" in said


def test_a_cache_of_another_clip_is_refused(start, data, tiny_clip, tmp_path):
    build_cache(tmp_path / "other", data.images, data.image_names()[:3], clip=load_encoder(tiny_clip))
    with pytest.raises(UserError, match=r"holds embeddings of .*, but asked for is tiny"):
        start(at=tmp_path / "other")
    with pytest.raises(
        UserError, match=r"float32, pooled\), but asked for is tiny .*float32, patches\); .* the pooling"
    ):
        start(pooling="patches")
    with pytest.raises(UserError, match="holds no embeddings; make them with"):
        start(at=tmp_path / "none")


def test_a_session_of_nothing_is_refused(start):
    with pytest.raises(UserError, match="max_steps is 0, but must be at least 1"):
        start(max_steps=0)
    with pytest.raises(UserError, match="max_hours is nan, but must be above 0"):
        start(max_hours=float("nan"))


@pytest.mark.parametrize(
    "values",
    [
        {"freezing": "full"},
        {"freezing": "frozen"},
        {"precision": "bf16"},
        {"mapper": "mlp"},
        {"freezing": "lora", "precision": "bf16"},
    ],
)
def test_other_ways_train_too(start, values):
    history = start(max_steps=4, **values).history()
    assert history.loss.notna().all()
    assert history.gpt2_lr.notna().all()


def test_a_disk_that_is_full_leaves_the_checkpoint_before(start, finished, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", disk], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        run, filler = start(folder=disk / "run", max_steps=4), disk / "filler"

        def fill(_history) -> None:
            if not filler.exists():
                filler.write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))

        with pytest.raises(UserError, match=r"no checkpoint of step 8 could be written .*no space left on the device"):
            start(folder=disk / "run", watch=fill)
        assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000004"]
        with pytest.raises(
            UserError, match=r"no space left on the disk of .*run: the run needs .* GB more, but .* GB are free"
        ):
            start(folder=disk / "run")
        assert list(run.history().step) == [3, 4]  # not one step was taken
        filler.unlink()
        assert same_bits(start(folder=disk / "run"), finished)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_micro_batches_learn_what_whole_ones_do(start, tmp_path):
    """Split 32 captions into 3 parts of 11, 11 and 10, without dropout, because each part would draw its own."""
    runs = [start(dropout=0.0, micro_batches=parts, folder=tmp_path / f"{parts}") for parts in (1, 3)]
    pd.testing.assert_frame_equal(*(run.history().drop(columns=TIMED) for run in runs), rtol=1e-3)


def test_a_run_may_go_on_in_other_micro_batches(start, finished):
    """Resume with other micro-batches, as on another card. All other values stay (see the tests of refused ones)."""
    start(max_steps=4)
    again = start(micro_batches=4).history()
    assert again.loss.iloc[-1] == pytest.approx(finished.history().loss.iloc[-1], rel=0.02)


def test_the_best_checkpoint_stays_and_becomes_a_captioner(start, tmp_path):
    """Train with a learning rate that soon ruins the captioner."""
    run = start(epochs=6, mapper_lr=0.3, gpt2_lr=0.3, warmup=1.0)
    history = run.history().dropna()
    best = history.step[history.val_loss.idxmin()]
    assert best < history.step.iloc[-2]
    assert int(checkpoints(run.checkpoints)[0].name[-8:]) == best
    kept = load_file(checkpoints(run.checkpoints)[0] / "model.safetensors")
    captioner = load_file(run.best_captioner / "model.safetensors")
    assert all(torch.equal(captioner[name], tensor) for name, tensor in kept.items())


def test_a_tracker_gets_the_history(start):
    run = start(tracker="tensorboard", max_steps=4)
    events = EventAccumulator(str(run.folder / "clipxgpt"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == list(run.history().step)
    with pytest.raises(UserError, match="tracker is 'aim', which is not installed: pip install aim"):
        start(tracker="aim")
    with pytest.raises(UserError, match="tracker is 'paper', but must be one of aim, comet_ml, "):
        start(tracker="paper")


def test_a_batch_too_large_for_memory_is_found_out_before_any_step(start, monkeypatch, tmp_path):
    def full(self, packed):
        if len(packed.embeddings) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, packed)

    forward = CaptionLoss.forward
    monkeypatch.setattr(CaptionLoss, "forward", full)
    with pytest.raises(UserError, match=r"the 32 longest captions do not fit .* at once: --micro-batches 2 computes"):
        start()
    assert not (tmp_path / "run" / "checkpoints").exists()
    start(micro_batches=4, max_steps=4)  # the suggested fix


def test_a_training_goes_on_from_a_captioner(start, finished, writer, tmp_path):
    fresh = start(folder=tmp_path / "fresh", max_steps=3, log_every=1).history().loss
    run = start(start_from=str(finished.folder), max_steps=3, log_every=1)
    assert run.history().loss.iloc[0] < fresh.iloc[0] - 0.03
    start(start_from=str(finished.folder), log_every=1)  # resumed
    found = CaptionWriter.load(run.folder).captioner.state_dict()
    before = writer.captioner.state_dict()
    for name in ("embedding_mean", "embedding_std", "gpt2.transformer.h.1.attn.c_attn.weight"):
        assert torch.equal(found[name], before[name])  # frozen weights, and the embeddings' standardisation
    assert not torch.equal(found["mapper.output.weight"], before["mapper.output.weight"])


def test_a_captioner_knows_whether_it_learned_captions_without_a_picture(start, finished, tmp_path):
    def learned(name, **values):
        run = start(folder=tmp_path / name, max_steps=1, **values)
        return CaptionWriter.load(run.folder).captioner.config.learned_without_picture

    text = learned("text", text_share=0.5)
    assert (learned("photos"), text, learned("again", start_from=str(tmp_path / "text"))) == (False, True, True)
    old = shutil.copytree(finished.captioner, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    assert config.pop("learned_without_picture") is False
    (old / "config.json").write_text(json.dumps(config))
    assert learned("from an old one", start_from=str(old)) is None
    assert learned("text behind it", start_from=str(old), text_share=0.5) is True


def test_a_captioner_remembers_the_files_that_it_was_trained_on(start, finished, data, tmp_path):
    def files(*splits) -> list[str]:
        names = [name for split in splits for name in data.image_names(split)]
        return sorted(hashlib.sha256((data.images / name).read_bytes()).hexdigest()[:16] for name in names)

    def remembered(folder) -> list[str]:
        return json.loads((folder / "trained_on.json").read_text())

    assert remembered(finished.captioner) == files("train")
    others = data.captions.replace({"split": {"test": "train", "train": "test"}})
    run = start(others, start_from=str(finished.folder), max_steps=1, epochs=1)
    assert remembered(run.captioner) == files("train", "test")
    CaptionWriter.load(run.folder).save(tmp_path / "copy", half=True)
    assert remembered(tmp_path / "copy") == files("train", "test")


def test_pictures_unlike_those_of_the_captioner_that_it_starts_from(start, finished, data, cache, tmp_path, capsys):
    writer = CaptionWriter.load(finished.captioner)
    writer.captioner.familiarity.limit.mul_(1e-3)  # now every picture is unlike its training
    writer.save(tmp_path / "before")
    embeddings = cache.rows(data.image_names("train"))
    few = data.captions[~data.captions.image_name.isin(data.image_names("train")[20:])]
    for captions, unlike in ((few, 20), (data.captions, 0)):
        run = start(captions, folder=tmp_path / str(unlike), start_from=str(tmp_path / "before"), max_steps=1)
        said = "the 20 training pictures are unlike those that" in capsys.readouterr().err
        assert said == bool(unlike)
        found = CaptionWriter.load(run.captioner).unlike_training(embeddings[:20])
        assert sum(found) == pytest.approx(unlike, abs=2)  # in a hundred, some are always called unlike


def test_a_captioner_to_start_from_must_have_the_same_design(start, finished, tmp_path):
    with pytest.raises(UserError, match=r"prefix_length is 9, but the captioner in .* has 4: a training that starts"):
        start(start_from=str(finished.folder), prefix_length=9)
    with pytest.raises(UserError, match="nowhere holds no captioner"):
        start(start_from="nowhere")


def test_two_processes_learn_what_one_does(start, config, data, cache, tmp_path):
    """Train without dropout, because each process draws its own. One process has no row in an epoch's last batch."""
    training = data.captions.index[data.captions.split == "train"]
    data = replace(data, captions=data.captions.drop(index=training[len(training) // 32 * 32 + 1 :]))
    one = start(captions=data.captions, dropout=0.0, folder=tmp_path / "one")
    context, alone = multiprocessing.get_context("fork"), config.with_values(dropout=0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    several = [
        context.Process(target=child.train_together, args=(rank, port, alone, data, cache.folder, tmp_path / "two"))
        for rank in range(2)
    ]
    for process in several:
        process.start()
    for process in several:
        process.join(60)
    assert [process.exitcode for process in several] == [0, 0]
    histories = [run.history().drop(columns=TIMED) for run in (one, Run(tmp_path / "two"))]
    pd.testing.assert_frame_equal(*histories, rtol=1e-3)


def test_a_text_with_captions_of_held_out_pictures_is_learned_without_them(start, data, tmp_path):
    data.captions[["image_name", "caption"]].to_csv(tmp_path / "text.csv", index=False)
    held_out = (data.captions.split != "train").sum()
    with pytest.warns(UserWarning, match=f"{held_out} texts of .*text.csv are of held-out pictures and are left out"):
        run = start(text=str(tmp_path / "text.csv"), text_share=0.5, max_steps=1)
    assert json.loads(run.config_file.read_text())["data"]["text_captions"] == len(data.captions) - held_out


def test_one_picture_to_train_on_is_too_few(start, data):
    first = data.image_names("train")[0]
    captions = data.captions[(data.captions.split != "train") | (data.captions.image_name == first)]
    with pytest.raises(UserError, match="1 picture to train on, but a training needs at least 2: give more photos"):
        start(captions=captions)
