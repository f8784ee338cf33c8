"""Whatever stands in a file that a command reads, it is read, passed over in words, or refused in one line."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from helpers.commands.options import resumed_config
from helpers.data.build_cache import build_cache
from helpers.data.embedding_cache import FINGERPRINT, EmbeddingCache
from helpers.data.scenes import draw_world, read_facts
from helpers.data.shards import Shard
from helpers.encoders.vision import ImageEncoder
from helpers.errors import UserError
from helpers.experiments.ablation import _read_results, _shared
from helpers.experiments.trial import read_result
from helpers.models.loading import load_encoder
from helpers.runtime.files import read_json
from helpers.runtime.model_folders import read_run_config, remembered_inputs, training_splits
from helpers.training.checkpoint import best_of, newest_step
from helpers.training.estimate import Plan
from helpers.training.run import HISTORY, Run

BOUNDED = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
FEW = settings(BOUNDED, max_examples=6)
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
DEEP = b"[" * 50_000
# Bytes of no form, JSON of any form, and JSON of the right names with values of wrong types.
NOISE = st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()) | st.just(DEEP)


@pytest.fixture(scope="module")
def clip() -> ImageEncoder:
    return load_encoder("tiny")


def like(example: dict) -> st.SearchStrategy[bytes]:
    """Return strange files, many of which have some of the names and values of the example."""
    mixed = st.fixed_dictionaries({name: st.just(value) | VALUES for name, value in example.items()})
    return NOISE | mixed.map(lambda value: json.dumps(value).encode())


def says(work, *arguments) -> object:
    """Return what the work returns, or the words in which it refuses, which the commands print as one line."""
    try:
        return work(*arguments)
    except UserError as error:
        return str(error)


FINGERPRINT_LIKE = like({"name": "tiny", "weights_sha256": "0", "preprocessing": {}, "pooling": "p", "dtype": "float32",
                         "width": 32, "tokens": 5})  # fmt: skip


@BOUNDED
@given(content=FINGERPRINT_LIKE)
def test_a_fingerprint(tmp_path_factory, clip, content):
    folder = tmp_path_factory.mktemp("cache")
    (folder / FINGERPRINT).write_bytes(content)
    says(EmbeddingCache.open, folder)
    says(EmbeddingCache.open, folder, clip)


ROWS = [torch.zeros(2, 3).half(), torch.zeros(2, 3), torch.zeros(2).half(), torch.zeros(0, 3).half()]
COLUMNS = [torch.zeros(2), torch.zeros(2, 2), torch.zeros(3), torch.full((2,), torch.inf), torch.ones(2).long()]


@BOUNDED
@given(
    record=like({"image_names": ["a.png", "b.png"], "left_out": {"c.png": "is empty"}, "sha256": "0"}),
    rows=st.sampled_from(ROWS),
    files=st.none() | st.sampled_from(COLUMNS),
)
def test_a_shard(tmp_path_factory, record, rows, files):
    path = tmp_path_factory.mktemp("shard") / "shard-00000.safetensors"
    columns = {} if files is None else {f"file_{name}": files.clone() for name in ("bytes", "modified_ns", "sha256")}
    save_file({"embeddings": rows, **columns}, path, {"shard": record.decode("utf-8", "replace")})
    says(Shard.read, path)
    path.write_bytes(record)
    assert "is broken" in says(Shard.read, path)


@FEW
@given(content=NOISE)
def test_the_tables_of_a_cache(tmp_path_factory, data, cache, clip, content):
    folder = shutil.copytree(cache.folder, tmp_path_factory.mktemp("copy") / "cache")
    (folder / "index.csv").write_bytes(content)
    assert len(build_cache(folder, data.images, data.image_names(), clip=clip)) == len(cache)
    assert (folder / "index.csv").read_bytes() == (cache.folder / "index.csv").read_bytes()


@BOUNDED
@given(content=like({"images": 2, "seed": 0}))
def test_a_drawn_world(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("world")
    (folder / "world.json").write_bytes(content)
    says(lambda: draw_world(folder, images=2))
    scene = {"background": "white", "color": "red", "shape": "star", "count": 1}
    (folder / "facts.json").write_bytes(content)
    says(read_facts, folder / "facts.json")
    (folder / "facts.json").write_text(json.dumps({"a.png": scene | {"count": "one"}}))
    assert "is no facts.json" in says(read_facts, folder / "facts.json")


RUN_LIKE = like({"config": {"epochs": 3}, "data": {"captions": 5}, "versions": {}})


@BOUNDED
@given(content=RUN_LIKE)
def test_the_records_of_a_run(tmp_path_factory, content):
    run = Run(tmp_path_factory.mktemp("run"))
    for file in (run.config_file, run.plan_file, run.history_file, run.samples_file, run.folder / "inputs.json"):
        file.write_bytes(content)
    says(read_run_config, run.folder)
    says(resumed_config, run.folder, "tiny", {})
    says(Plan.read, run.plan_file)
    given = {"images": None, "captions": Path("x"), "splits": None, "cache": None}
    assert training_splits([run.folder], Path("photos"), Path("captions.csv")) is None
    says(remembered_inputs, run.folder, given, {"image_column": None, "follow_links": False})
    assert list(run.history().columns) == HISTORY
    run.samples()
    run.rewind(0)
    assert run.history().empty


@BOUNDED
@given(content=like({"step": 4, "elapsed": 1.0, "meter": {"loss": 1.0, "steps": 2}, "scaler": None, "val_loss": 0.5}))
def test_the_state_of_a_checkpoint(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("run") / "step-00000004"
    path.mkdir()
    (path / "state.json").write_bytes(content)
    for name in ("model", "optimizer"):
        save_file({"x": torch.zeros(1)}, path / f"{name}.safetensors")
    assert best_of([path]) in (None, path)
    assert newest_step(path.parent) in (None, 4)


@BOUNDED
@given(content=NOISE | st.sampled_from([b"seed,correct\n0,1\n1", b'a\n"', b"x" * 300_000]))
def test_the_results_of_an_ablation(tmp_path_factory, config, content):
    out = tmp_path_factory.mktemp("results") / "results.csv"
    out.write_bytes(content)
    says(_read_results, out, ["prefix_length", "seed"])
    out.with_suffix(".json").write_bytes(content)
    says(lambda: _shared(out, config, {"prefix_length": [1]}, data="x"))
    assert read_result(out) is None or isinstance(read_result(out), dict)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path, data, cache, clip):
    def pipe(path: Path) -> Path:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return path

    with pytest.raises(OSError, match="is no file"):
        read_json(pipe(tmp_path / "pipe"))
    folder = shutil.copytree(cache.folder, tmp_path / "cache")
    pipe(folder / "index.csv")
    build_cache(folder, data.images, data.image_names(), clip=clip)
    shard = pipe(next(folder.glob("shard-*")))
    assert "is broken (it is no file)" in says(Shard.read, shard)
    pipe(folder / FINGERPRINT)
    assert "is broken" in says(EmbeddingCache.open, folder)
    assert "is damaged" in says(lambda: draw_world(pipe(tmp_path / "world.json").parent, images=2))
    run = Run(tmp_path)
    assert "is no run's config.json" in says(read_run_config, pipe(run.config_file).parent)
    for file in (run.history_file, run.samples_file):
        pipe(file)
    run.rewind(0)
    assert run.history().empty
    (run.checkpoints / "step-00000004").mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        pipe(run.checkpoints / "step-00000004" / name)
    assert newest_step(run.checkpoints) is None
    assert "is no table of results" in says(_read_results, pipe(tmp_path / "results.csv"), ["seed"])
