"""Several processes, together or apart, build the same cache as one process."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import child
import pytest
import torch

from helpers.cli import main
from helpers.commands import checks
from helpers.data.build_cache import build_cache
from helpers.data.embedding_cache import EmbeddingCache
from helpers.data.scenes import draw_world
from helpers.data.shards import Part, Shard
from helpers.errors import UserError
from helpers.models.loading import load_encoder
from helpers.runtime.files import only_one

SMALL = {"batch_size": 4, "shard_size": 7}


@pytest.fixture(scope="module")
def clip(tiny_clip):
    return load_encoder(tiny_clip)


@pytest.fixture(scope="module")
def names(data):
    return data.image_names()


@pytest.fixture(scope="module")
def whole(data, names, clip, tmp_path_factory):
    """The cache that one process builds."""
    return build_cache(tmp_path_factory.mktemp("whole") / "cache", data.images, names, clip=clip, **SMALL)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same_rows(cache, whole, names):
    """Compare rows within rounding: the batch size may change the last bit of a float16."""
    torch.testing.assert_close(cache.rows(names), whole.rows(names), atol=2e-3, rtol=2e-3)


@pytest.fixture
def spawn(data, names, tiny_clip):
    """Return a function that builds a part in its own process, and returns that process once it has loaded CLIP."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.data.build_cache"])

    def process(folder, part):
        started = context.Event()
        sizes = {**SMALL, "part": part}
        work = context.Process(target=child.build, args=(folder, data.images, names, tiny_clip, sizes, started))
        work.start()
        assert started.wait(60)
        return work

    return process


@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_parts_make_up_the_whole(whole, data, names, clip, count, tmp_path):
    for index in reversed(range(count)):
        cache = build_cache(tmp_path / "cache", data.images, names, clip=clip, **SMALL, part=Part(index, count))
    assert sorted(cache.image_names) == sorted(whole.image_names)
    assert_same_rows(cache, whole, names)
    assert len(cache.index()) == len(names)


def test_parts_that_were_made_apart_are_copied_together(whole, data, names, clip, tmp_path):
    for index in range(2):
        build_cache(tmp_path / f"{index}", data.images, names, clip=clip, **SMALL, part=Part(index, 2))
    for shard in (tmp_path / "1").glob("shard-*"):
        shutil.copy(shard, tmp_path / "0")
    assert_same_rows(EmbeddingCache.open(tmp_path / "0"), whole, names)
    before = content(tmp_path / "0")
    assert len(build_cache(tmp_path / "0", data.images, names, clip=clip)) == len(names)  # nothing is left to embed
    shards = {name: value for name, value in before.items() if name.startswith("shard")}
    assert {name: value for name, value in content(tmp_path / "0").items() if name.startswith("shard")} == shards


def test_a_part_of_another_encoder_is_refused_and_stays(data, names, clip, tiny_clip, tmp_path):
    same_shape, other_shape = load_encoder(tiny_clip), load_encoder("tiny")
    with torch.no_grad():
        next(same_shape.vision.parameters()).add_(1)
    for place, other in ((tmp_path / "same", same_shape), (tmp_path / "other", other_shape)):
        for index, encoder in enumerate((clip, other)):
            build_cache(place / f"{index}", data.images, names, clip=encoder, **SMALL, part=Part(index, 2))
        folder = place / "0"
        for shard in (place / "1").glob("shard-*"):
            shutil.copy(shard, folder)
        before = content(folder)
        wanted = f"{folder}/shard-p2of2-00000.safetensors holds embeddings of another encoder than .*fingerprint.json"
        for use in (EmbeddingCache.open, lambda folder: build_cache(folder, data.images, names, clip=clip)):
            with pytest.raises(UserError, match=wanted):
                use(folder)
        assert content(folder) == before


def test_parts_of_before_encoders_were_recorded_are_taken(whole, names, tmp_path):
    folder = shutil.copytree(whole.folder, tmp_path / "cache")
    for path in folder.glob("shard-*"):
        replace(Shard.read(path), encoder=None).save(path)
    assert torch.equal(EmbeddingCache.open(folder).rows(names), whole.rows(names))


def test_two_parts_at_the_same_time_in_one_folder(whole, names, spawn, tmp_path):
    works = [spawn(tmp_path / "cache", Part(index, 2)) for index in range(2)]
    for work in works:
        work.join(60)
    assert [work.exitcode for work in works] == [0, 0]
    assert_same_rows(EmbeddingCache.open(tmp_path / "cache"), whole, names)
    assert not list((tmp_path / "cache").glob(".*"))


def test_a_part_killed_at_any_moment_goes_on_to_the_same_bytes(data, names, clip, spawn, tmp_path):
    """Leave another part's half-written file in the same folder alone."""
    work, begin = spawn(tmp_path / "uncut", Part(1, 2)), time.perf_counter()
    work.join(60)
    seconds, uncut, moments = time.perf_counter() - begin, content(tmp_path / "uncut"), random.Random(0)
    for attempt in range(10):
        folder = tmp_path / f"killed-{attempt}"
        for _ in range(2):
            work = spawn(folder, Part(1, 2))
            work.join(moments.uniform(0, 0.9 * seconds))
            if work.is_alive():
                os.kill(work.pid, signal.SIGKILL)
            work.join(60)
        others = folder / ".shard-p1of2-00000.safetensors.partial"
        others.write_bytes(b"another process is writing this")
        build_cache(folder, data.images, names, clip=clip, **SMALL, part=Part(1, 2))
        assert others.exists()
        others.unlink()
        assert content(folder) == uncut


def test_one_part_is_made_by_one_process(data, names, clip, tmp_path):
    with (
        only_one(tmp_path / "cache", "making part 2/2 of the embeddings"),
        pytest.raises(UserError, match=r"another process is making part 2/2 of the embeddings in .*cache: wait for it"),
    ):
        build_cache(tmp_path / "cache", data.images, names, clip=clip, part=Part(1, 2))
    assert not (tmp_path / "cache").exists()


def test_a_part_without_a_readable_picture_stops_nobody(data, names, clip, tmp_path):
    for index in range(2):
        cache = build_cache(tmp_path, data.images, ["gone.png", *names[:3]], clip=clip, part=Part(index, 4))
    assert cache.image_names == names[:1]
    assert cache.left_out.image_name.tolist() == ["gone.png"]


def test_a_broken_shard_of_another_part_is_made_anew_by_that_part(whole, data, names, clip, tmp_path):
    def build(index):
        return build_cache(tmp_path, data.images, names, clip=clip, **SMALL, part=Part(index, 2))

    for index in range(2):
        build(index)
    shards = content(tmp_path)
    (tmp_path / "shard-p1of2-00001.safetensors").write_bytes(b"broken")
    assert len(build(1)) == len(names) - SMALL["shard_size"]
    assert len(build(0)) == len(names)
    assert content(tmp_path) == shards


@pytest.mark.parametrize("text", ["0/4", "5/4", "x", "1", "1/", "-1/4", "1/0"])
def test_a_part_that_is_none(text):
    with pytest.raises(UserError, match=f"part is '{text}', but must be 1/4 for the first of four, and so on to 4/4"):
        checks.part(text)


def test_parts_are_whole_and_do_not_meet():
    names = [str(number) for number in range(10)]
    for count in range(1, 13):
        assert [name for index in range(count) for name in Part(index, count).of(names)] == names
    assert [Part(*checks.part("2/4")).split(index, 3) for index in range(3)] == [Part(3, 12), Part(4, 12), Part(5, 12)]


@pytest.fixture
def embed(data, tmp_path):
    """Return the words of the embed command."""
    flags = ["--images", data.images, "--captions", data.images.parent / "results.csv", "--out", tmp_path / "cache"]
    return ["embed", "--clip", "tiny", *map(str, flags)]


def test_the_command_makes_one_part_after_the_other(data, embed, tmp_path, capsys):
    for part, made in (("1/2", 30), ("2/2", 60)):
        main([*embed, "--part", part])
        said = capsys.readouterr().out.splitlines()
        assert said == [f"part {part} of the pictures is done", f"{made} embeddings lie in {tmp_path / 'cache'}"]
    with pytest.raises(SystemExit, match="2"):
        main([*embed, "--part", "3/2"])
    assert capsys.readouterr().err.startswith("clipxgpt: part is '3/2', but must be 1/4 for the first of four")


def test_torchrun_shares_the_pictures_out(data, names, embed, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "helpers"]
    without_cards = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*torchrun, *embed], capture_output=True, text=True, check=False, env=without_cards)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == f"{len(names)} embeddings lie in {tmp_path / 'cache'}\n"
    assert done.stderr.count("embedding:   0%") == 1  # one bar
    two = EmbeddingCache.open(tmp_path / "cache")
    assert {path.name for path in two.folder.glob("shard-*")} == {f"shard-p{n}of2-00000.safetensors" for n in (1, 2)}
    assert_same_rows(two, build_cache(tmp_path / "one", data.images, names, clip=load_encoder("tiny")), names)


def test_a_world_is_drawn_by_one_process_and_found_by_the_other(tmp_path):
    context = multiprocessing.get_context("fork")
    works = [context.Process(target=draw_world, args=(tmp_path / "world",), kwargs={"images": 40}) for _ in range(2)]
    for work in works:
        work.start()
    for work in works:
        work.join(60)
    assert [work.exitcode for work in works] == [0, 0]
    assert len(list((tmp_path / "world" / "flickr30k_images").iterdir())) == 40
    assert not list(tmp_path.rglob(".*"))
