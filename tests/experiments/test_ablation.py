"""An ablation over several seeds: the numbers do not depend on how many runs go at once or on interruptions."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch

from helpers.errors import NoRoomError, UserError
from helpers.experiments import ablation, trial
from helpers.experiments.ablation import ablate
from helpers.experiments.trial import Trial, captions_sha256, run_trial


@pytest.fixture
def experiment(config, data, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "RUNS", tmp_path / "runs")

    def run(vary, seeds=1, data=data, jobs=1, out="results.csv", command="", **values):
        base = config.with_values(**{"epochs": 1, **values})
        out = tmp_path / out
        return ablate(base, vary, data, seeds=seeds, cache=cache.folder, out=out, jobs=jobs, command=command)

    return run


def test_runs_beside_each_other_give_what_one_gives_alone(experiment, config, data, cache, monkeypatch, tmp_path):
    vary = {"prefix_length": [1, 2], "train_embeddings": [False]}
    first = experiment(vary, jobs=2)
    assert first[["prefix_length", "train_embeddings", "seed"]].values.tolist() == [[1, False, 0], [2, False, 0]]
    assert len(list((tmp_path / "runs").iterdir())) == 2
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "results.csv"), first)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for row in pd.read_csv(tmp_path / "results.csv", dtype=str).to_dict("records"):
        trial = Trial(config.with_values(epochs=1, prefix_length=int(row["prefix_length"]), train_embeddings=False))
        alone = run_trial(trial, data, cache.folder, folder=tmp_path / "alone" / row["prefix_length"])
        assert alone.pop("pictures_sha256")
        alone["seconds"] = row["seconds"]  # only the time may differ
        assert {name: row[name] for name in alone} == {name: str(value) for name, value in alone.items()}
    torch.set_num_threads(threads)
    monkeypatch.delattr(ablation, "run_in_process")  # no run is repeated, not even in another experiment
    pd.testing.assert_frame_equal(experiment(vary), first)
    with pytest.raises(UserError, match="holds results of another base config"):
        experiment(vary, epochs=2)


def test_a_killed_run_loses_only_itself_and_goes_on_by_the_same_command(experiment, config, tmp_path, capsys):
    vary, ended = {"prefix_length": [1, 2]}, []
    killer = threading.Thread(target=lambda: ended.append(kill_the_first_child()))
    killer.start()
    with pytest.raises(UserError, match=r"1 of 2 runs failed \(prefix_length 1, seed 0\): see above why"):
        experiment(vary, jobs=2)
    killer.join()
    assert "prefix_length 1, seed 0: ended by signal 9" in capsys.readouterr().err
    assert pd.read_csv(tmp_path / "results.csv").prefix_length.tolist() == [2]
    kept = (tmp_path / "results.csv").read_text().splitlines()[-1]
    assert experiment(vary).prefix_length.tolist() == [1, 2]
    assert (tmp_path / "results.csv").read_text().splitlines()[-1] == kept


def kill_the_first_child() -> int:
    """Kill this process's first child as soon as there are two, and return its id."""
    for _ in range(1000):
        children = sorted((child for child in active_children()), key=lambda child: child.pid)
        if len(children) == 2:
            children[0].kill()
            return children[0].pid
        time.sleep(0.01)
    raise TimeoutError("there never were two children")


def test_a_failing_run_is_named_with_its_reason(experiment, config, data, tmp_path, capsys):
    trial = Trial(config.with_values(epochs=1))
    folder = tmp_path / "runs" / trial.name(captions_sha256(data))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match="1 of 1 runs failed"):
        experiment({"prefix_length": [trial.config.prefix_length]})
    said = capsys.readouterr().err
    assert "config.json is no run's config.json: name the folder of a run, or a new one (exit status 1, see" in said


def test_a_finished_run_on_pictures_that_have_changed_since_is_not_taken_for_another_table(
    config, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(ablation, "RUNS", tmp_path / "runs")
    images = tmp_path / "photos"
    shutil.copytree(data.images, images)
    arguments = {"seeds": 1, "jobs": 1, "cache": tmp_path / "embeddings"}
    base, vary, own = config.with_values(epochs=1), {"prefix_length": [2]}, replace(data, images=images)
    first = ablate(base, vary, own, out=tmp_path / "first.csv", **arguments)
    pd.testing.assert_frame_equal(ablate(base, vary, own, out=tmp_path / "again.csv", **arguments), first)
    val = data.image_names("val")
    shutil.copy(data.images / val[1], images / val[0])
    with pytest.raises(UserError, match="1 of 1 runs failed"):
        ablate(base, vary, own, out=tmp_path / "later.csv", **arguments)
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"{folder} was trained on pictures that have changed since: remove it" in capsys.readouterr().err
    shutil.rmtree(folder)
    assert len(ablate(base, vary, own, out=tmp_path / "later.csv", **arguments)) == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_the_children_save_and_end_with_their_parent(data, cache, tmp_path, number, status):
    world = ["--images", data.images, "--captions", data.images.parent / "results.csv", "--cache", cache.folder]
    words = [
        sys.executable,
        "-m",
        "helpers",
        "ablate",
        *world,
        "--vary",
        "defect=none,all",
        "--seeds",
        "1",
        "--jobs",
        "2",
    ]
    words += ["--out", "results.csv", "--epochs", "200", "--eval-every", "9999", "--mapper-layers", "1"]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [*map(str, words)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, stderr=subprocess.PIPE, text=True
    ) as parent:
        wait_for(lambda: len(list(tmp_path.glob("runs/ablations/*/plan.json"))) == 2)
        children = psutil.Process(parent.pid).children()
        assert len(children) >= 2
        parent.send_signal(number)
        assert parent.wait(timeout=60) == status
        said = parent.stderr.read()
        assert ("interrupted; run the same command again to go on" in said) == (number == signal.SIGINT)
    _gone, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert len(list(tmp_path.glob("runs/ablations/*/checkpoints/step-*"))) == 2
    assert not (tmp_path / "results.csv").exists()


def wait_for(condition) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError("it did not come true within two minutes")


def test_each_encoder_gets_embeddings_of_its_own(experiment, cache, tiny_clip):
    results = experiment({"clip": ["tiny", str(tiny_clip)]}, mapper="mlp")
    assert results["clip"].tolist() == ["tiny", str(tiny_clip)]
    beside = Path(f"{cache.folder}-clip-pooled")
    assert json.loads((beside / "fingerprint.json").read_text())["width"] == 32
    assert results.val_loss.nunique() == 2


def test_the_record_says_how_and_of_what_trainings_a_table_is_made(experiment, tmp_path):
    experiment({"prefix_length": [1, 2]}, command="clipxgpt ablate …")
    experiment({"prefix_length": [1, 2]}, seeds=2, command="clipxgpt ablate … --seeds 2")
    experiment({"train_embeddings": [True]}, prefix_length=2, out="other.csv")
    first, other = (json.loads((tmp_path / name).read_text()) for name in ("results.json", "other.json"))
    assert [call["command"] for call in first["calls"]] == ["clipxgpt ablate …", "clipxgpt ablate … --seeds 2"]
    assert {"python", "torch", "transformers", "cpu", "cores", "threads", "card"} < set(first["calls"][0])
    assert first["calls"][0]["torch"] == torch.__version__
    assert first["seeds"] == [0, 1]
    assert first["varied"] == ["prefix_length"]
    assert "prefix_length" not in first["settings"]
    assert first["settings"]["epochs"] == 1
    assert len(first["trainings"]) == 4
    (shared,) = first["trainings"].keys() & other["trainings"].keys()
    assert first["trainings"][shared] == "prefix_length 2, seed 0"
    assert other["trainings"][shared] == "train_embeddings True, seed 0"
    assert set(first["trainings"]) == {folder.name for folder in (tmp_path / "runs").iterdir()}


def test_results_of_before_a_new_field_go_on(experiment, tmp_path):
    experiment({"prefix_length": [1]})
    file = tmp_path / "results.json"
    found = json.loads(file.read_text())
    assert found["settings"].pop("text_share") == 0
    file.write_text(json.dumps(found))
    assert len(experiment({"prefix_length": [1]})) == 1
    file.write_text(json.dumps({**found, "settings": {**found["settings"], "text_share": 0.5}}))
    with pytest.raises(UserError, match="holds results of another base config"):
        experiment({"prefix_length": [1]})


def test_a_wrong_value_is_found_before_the_first_run(experiment, tmp_path):
    with pytest.raises(UserError, match="prefix_length is 0, but must be between 1 and 1024"):
        experiment({"prefix_length": [4, 0]})
    with pytest.raises(UserError, match="seeds is 0"):
        experiment({"prefix_length": [4]}, seeds=0)
    with pytest.raises(UserError, match="jobs is 0"):
        experiment({"prefix_length": [4]}, jobs=0)
    with pytest.raises(UserError, match="defect is 'typos'"):
        experiment({"defect": ["none", "typos"]})
    with pytest.raises(UserError, match="train_images is 1000, but there are only"):
        experiment({"train_images": [4, 1000]})
    assert not list(tmp_path.iterdir())


def test_an_arm_that_can_never_start_from_the_captioner_is_refused_before_the_first_run(
    experiment, finished, tmp_path, monkeypatch
):
    monkeypatch.delattr(ablation, "run_in_process")
    with pytest.raises(UserError, match=r"prefix_length is 1, but the captioner in .* has 4: a training that starts"):
        experiment({"prefix_length": [4, 1]}, start_from=str(finished.folder))
    assert not (tmp_path / "runs").exists()


def test_a_full_disk_ends_all_in_one_line(experiment, tmp_path, monkeypatch, capfd):
    """No place that a child writes to has room, not even for its log: here every folder of a run is a full device."""
    monkeypatch.setattr(ablation, "run_in_process", run_on_a_full_disk)
    with pytest.raises(NoRoomError) as error:
        experiment({"prefix_length": [1, 2, 3, 4]})
    said = f"no space left on the disk of {tmp_path / 'runs'}, at prefix_length 1, seed 0: no other run is begun"
    assert str(error.value).startswith(said)
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert "Traceback" not in capfd.readouterr().err


def run_on_a_full_disk(*arguments, folder, **more) -> None:
    """Run a trial as `run_in_process` does, into a folder whose log, like /dev/full, takes nothing."""
    folder.mkdir(parents=True)
    (folder / "log.txt").symlink_to("/dev/full")
    trial.run_trial = raise_full
    trial.run_in_process(*arguments, folder=folder, **more)


def raise_full(*_arguments, **_more) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_run_that_cannot_begin_says_why(experiment, tmp_path, capfd):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match="1 of 1 runs failed"):
        experiment({"prefix_length": [1]})
    said = capfd.readouterr().err
    assert "prefix_length 1, seed 0: NotADirectoryError: [Errno 20]" in said
    assert "Traceback" not in said
