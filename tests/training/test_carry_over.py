"""A session continues from an earlier session's output among its inputs."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from helpers.data.build_cache import build_cache
from helpers.models.loading import load_encoder
from helpers.runtime import kaggle as inputs
from helpers.training.checkpoint import checkpoints
from helpers.training.kaggle import carry_over
from helpers.training.loop import train
from helpers.training.run import Run


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """A folder that stands for /kaggle/input; the session works in a sibling folder."""
    monkeypatch.setattr(inputs, "INPUTS", tmp_path / "input")
    (tmp_path / "input").mkdir()
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    return tmp_path / "input"


def test_the_furthest_whole_run_goes_on_to_the_same_bits(mounted, config, data, cache, finished):
    run = train(config, data.captions, cache.folder, out="first", max_steps=4)
    shutil.move(run.folder, mounted / "session-1" / "runs" / "x")
    shutil.copytree(mounted / "session-1" / "runs" / "x", "second")
    run = train(config, data.captions, cache.folder, out="second", resume=True, max_steps=4)
    shutil.move(run.folder, mounted / "notebooks" / "someone" / "session-2" / "runs" / "x")
    shutil.copytree(mounted / "notebooks/someone/session-2/runs/x", mounted / "session-3" / "runs" / "x")
    newest = checkpoints(mounted / "session-3/runs/x/checkpoints")[-1].rename(
        mounted / "session-3/runs/x/checkpoints/step-00000012"
    )  # further, but incomplete
    (newest / "optimizer.safetensors").write_bytes((newest / "optimizer.safetensors").read_bytes()[:-9])
    carry_over("runs/x")
    assert checkpoints(Run(inputs.Path("runs/x")).checkpoints)[-1].name == "step-00000008"
    run = train(config, data.captions, cache.folder, out="runs/x", resume=True)
    one, two = (load_file(each.captioner / "model.safetensors") for each in (run, finished))
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_what_is_here_and_as_far_stays(mounted, config, data, cache, finished):
    shutil.copytree(finished.folder, mounted / "earlier" / "run")
    shutil.copytree(finished.folder, "run")
    (inputs.Path("run") / "mine").touch()
    carry_over("run")
    assert (inputs.Path("run") / "mine").exists()
    carry_over("no-such")
    assert not inputs.Path("no-such").exists()


def test_a_cache_that_was_not_finished_goes_on(mounted, data, cache, tiny_clip):
    clip = load_encoder(tiny_clip)
    build_cache(mounted / "earlier" / "embeddings", data.images, data.image_names()[:20], clip=clip)
    carry_over("embeddings")
    went_on = build_cache("embeddings", data.images, data.image_names(), clip=clip)
    assert went_on.image_names[:20] == data.image_names()[:20]
    assert len(went_on) == len(data.image_names())
