"""The cache has the same bytes after any interruption, and never the rows of another CLIP."""

import json
import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

import child
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from helpers.data.build_cache import build_cache
from helpers.data.embedding_cache import EmbeddingCache, ImageEmbeddings
from helpers.data.images import open_picture
from helpers.encoders.vision import ImageEncoder
from helpers.errors import UserError
from helpers.models.loading import load_encoder
from helpers.runtime.files import only_one

NAMES = [f"{number:02}.png" for number in range(30)]
SMALL = {"batch_size": 4, "shard_size": 7}  # batches and shards that do not divide the pictures evenly


@pytest.fixture(scope="module")
def clip(tiny_clip) -> ImageEncoder:
    return load_encoder(tiny_clip)


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name)
    (folder / NAMES[3]).write_bytes(b"")
    (folder / NAMES[20]).write_bytes((folder / NAMES[21]).read_bytes()[:500])
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache"


READABLE = [name for name in NAMES if name not in (NAMES[3], NAMES[20])]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_rows_are_clips_pooled_outputs(folder, images, clip):
    cache = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert (len(cache), cache.image_names, cache.width) == (28, READABLE, 32)
    wanted = ["29.png", "00.png", "08.png", "00.png"]  # any order, across shards, one twice
    rows = cache.rows(wanted)
    assert (rows.shape, rows.dtype) == ((4, 32), torch.float32)
    expected = clip.embed([open_picture(images / name) for name in wanted])
    torch.testing.assert_close(rows, expected, atol=2e-3, rtol=2e-3)  # float16 and another batch
    assert cache.rows([]).shape == (0, 32)
    assert not torch.equal(rows[0], rows[1])


def test_the_folder_is_readable_without_the_helpers(folder, images, clip):
    cache = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    index, left_out = pd.read_csv(folder / "index.csv"), pd.read_csv(folder / "left_out.csv")
    assert index.image_name.tolist() == READABLE
    assert index.tail(1).values.tolist() == [["29.png", "shard-00004.safetensors", 1]]
    assert left_out.image_name.tolist() == [NAMES[3], NAMES[20]]
    assert "empty" in left_out.reason[0]
    assert str(images) not in left_out.reason[0]
    assert left_out.equals(pd.DataFrame(cache.left_out.values, columns=left_out.columns).astype(left_out.dtypes))
    assert sorted(content(folder)) == [
        "fingerprint.json", "index.csv", "left_out.csv", *(f"shard-0000{number}.safetensors" for number in range(5)),
    ]  # fmt: skip


def test_a_finished_cache_needs_no_pictures_no_card_and_no_writing(folder, images, clip, monkeypatch):
    before = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    written = content(folder)
    for name in READABLE:
        (images / name).unlink()
    folder.chmod(0o555)  # as on a read-only disk; root may write anyway, so the time is checked too
    changed = folder.stat().st_mtime_ns
    monkeypatch.delattr(
        "helpers.data.build_cache.choose_accelerator"
    )  # because notebooks later fork a process per card
    after = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert folder.stat().st_mtime_ns == changed
    assert content(folder) == written
    assert torch.equal(after.rows(READABLE), before.rows(READABLE))
    after.verify()


def test_added_pictures_come_in_new_shards(folder, images, clip):
    first = build_cache(folder, images, NAMES[:10], clip=clip, **SMALL)
    old = {name: value for name, value in content(folder).items() if name.startswith("shard")}
    second = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert {name: content(folder)[name] for name in old} == old
    assert second.image_names[: len(first)] == first.image_names
    assert set(second.image_names) == set(READABLE)


def test_a_picture_left_out_is_tried_again(folder, images, clip):
    build_cache(folder, images, NAMES, clip=clip, **SMALL)
    Image.new("RGB", (40, 40)).save(images / NAMES[3])
    (images / NAMES[20]).unlink()
    cache = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert cache.image_names == [*READABLE, NAMES[3]]
    assert cache.left_out.values.tolist() == [[NAMES[20], "is missing; give the path of a picture"]]
    assert pd.read_csv(folder / "left_out.csv").image_name.tolist() == [NAMES[20]]


def test_a_caption_without_an_image_and_a_name_that_leads_out(folder, images, clip):
    cache = build_cache(folder, images, ["00.png", "../00.png", "nowhere.jpg", "x" * 999, "a\nb.jpg"], clip=clip)
    assert cache.image_names == ["00.png"]
    assert len(cache.left_out) == 4


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(tmp_path, images, tiny_clip):
    context = multiprocessing.get_context("forkserver")  # as clean as a new process, without its import time
    context.set_forkserver_preload(["helpers.data.build_cache"])

    def build(folder: Path, patience: float | None = None) -> float:
        started = context.Event()
        process = context.Process(target=child.build, args=(folder, images, NAMES, tiny_clip, SMALL, started))
        process.start()
        assert started.wait(60)
        begin = time.perf_counter()
        process.join(patience)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL)
        return time.perf_counter() - begin

    seconds = build(tmp_path / "whole")
    whole = content(tmp_path / "whole")
    rng = random.Random(0)
    for attempt in range(5):
        folder = tmp_path / f"killed-{attempt}"
        for _ in range(4):
            build(folder, patience=rng.uniform(0, 0.6 * seconds))
        build(folder)
        assert content(folder) == whole


@pytest.mark.parametrize("stop", range(1, 9))
def test_stopped_at_each_write_it_goes_on_to_the_same_bytes(tmp_path, images, clip, stop, monkeypatch):
    build_cache(tmp_path / "whole", images, NAMES, clip=clip, **SMALL)
    replace, calls = os.replace, []

    def stop_there(*paths):
        calls.append(paths)
        if len(calls) == stop:
            raise KeyboardInterrupt
        replace(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop_there)
        with pytest.raises(KeyboardInterrupt):
            build_cache(tmp_path / "cut", images, NAMES, clip=clip, **SMALL)
    (tmp_path / "cut" / ".shard-00001.safetensors.partial").write_bytes(b"what a kill leaves")
    build_cache(tmp_path / "cut", images, NAMES, clip=clip, **SMALL)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied", "deleted", "text"])
def test_a_broken_shard_is_named_and_made_anew(folder, images, clip, damage):
    build_cache(folder, images, NAMES, clip=clip, **SMALL)
    whole, shard = content(folder), folder / "shard-00000.safetensors"  # the shard with a picture left out
    data = shard.read_bytes()
    shard.write_bytes(
        {"cut": data[:-9], "changed": data[:-9] + b"123456789", "emptied": b"", "text": b"x" * 99}.get(damage, b"")
    )
    if damage == "deleted":
        shard.unlink()
        assert len(EmbeddingCache.open(folder)) == 22
    else:
        with pytest.raises(UserError, match=r"shard-00000.safetensors is broken") as caught:
            EmbeddingCache.open(folder).verify()
        assert "\n" not in str(caught.value)
    build_cache(folder, images, NAMES, clip=clip, **SMALL).verify()
    assert content(folder) == whole


def last_bias(clip):
    """Return the bias of the norm behind the pooled output. Some versions of transformers prefix its name."""
    return next(p for name, p in clip.vision.named_parameters() if name.endswith("post_layernorm.bias"))


def test_a_cache_of_another_clip(folder, images, clip, tiny_clip):
    build_cache(folder, images, NAMES, clip=clip, **SMALL)
    written = content(folder)
    other = ImageEncoder(load_encoder(tiny_clip).vision, clip.processor, "another/clip")
    EmbeddingCache.open(folder, other)  # the same weights under another name
    with torch.no_grad():
        last_bias(other).add_(1)
    other = ImageEncoder(other.vision, other.processor, other.name)
    short = [found.fingerprint()["weights_sha256"][:8] for found in (clip, other)]
    for use in (EmbeddingCache.open, lambda folder, clip: build_cache(folder, images, NAMES, clip=clip)):
        with pytest.raises(UserError, match=f"weights {short[0]}.*another/clip.*weights {short[1]}") as caught:
            use(folder, other)
        assert "\n" not in str(caught.value)
    assert content(folder) == written


@pytest.fixture
def patch_clip(tiny_clip) -> ImageEncoder:
    return load_encoder(tiny_clip, pooling="patches")


def test_the_rows_may_be_patches(folder, images, patch_clip):
    cache = build_cache(folder, images, NAMES, clip=patch_clip, **SMALL)
    assert (len(cache), cache.shape, cache.width) == (28, (17, 32), 32)
    wanted = ["29.png", "00.png", "08.png", "00.png"]
    expected = patch_clip.embed([open_picture(images / name) for name in wanted])
    torch.testing.assert_close(cache.rows(wanted), expected, atol=4e-3, rtol=4e-3)
    assert cache.rows([]).shape == (0, 17, 32)
    written = content(folder)
    assert (json.loads(written["fingerprint.json"])["tokens"], len(written)) == (17, 8)
    build_cache(folder, images, NAMES, clip=patch_clip, **SMALL).verify()
    assert content(folder) == written


def test_patches_stay_on_disk_until_they_are_indexed(folder, images, clip, patch_clip, tmp_path, monkeypatch):
    cache = build_cache(folder, images, NAMES, clip=patch_clip, **SMALL)
    rows, whole = cache.of(READABLE[::-1]), cache.rows(READABLE[::-1])
    assert isinstance(rows, ImageEmbeddings)
    assert (len(rows), rows.shape) == (28, (28, 17, 32))
    for index in (slice(3, 9), slice(None, None, 5), torch.tensor([4, 0, 4]), slice(9, 3)):
        assert torch.equal(rows[index], whole[index])
    read = []
    original = EmbeddingCache.rows
    monkeypatch.setattr(
        EmbeddingCache, "rows", lambda self, names: original(self, read.append(list(names)) or read[-1])
    )
    rows[:2]
    assert read == [READABLE[:-3:-1]]
    with pytest.raises(UserError, match=r"1 images have no embedding"):
        cache.of(["nowhere.png"])[:1]


def test_pooled_rows_are_read_once(folder, images, clip, monkeypatch):
    cache = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    rows, whole = cache.of(READABLE[::-1]), cache.rows(READABLE[::-1])
    monkeypatch.delattr(EmbeddingCache, "rows")
    for index in (slice(3, 9), torch.tensor([4, 0, 4]), [1, 2]):
        assert torch.equal(rows[index], whole[index])
    assert torch.equal(rows.typical(), whole)


def test_a_cache_of_the_other_pooling_is_refused_by_both_names(tmp_path, images, clip, patch_clip):
    for made, asked in ((clip, patch_clip), (patch_clip, clip)):
        folder = tmp_path / made.pooling
        build_cache(folder, images, NAMES, clip=made, **SMALL)
        wanted = rf"float32, {made.pooling}\), but asked for is .*float32, {asked.pooling}\); .*use the pooling that"
        for use in (EmbeddingCache.open, lambda folder, clip: build_cache(folder, images, NAMES, clip=clip)):
            with pytest.raises(UserError, match=wanted) as caught:
                use(folder, asked)
            assert "\n" not in str(caught.value)


def test_a_cache_that_differs_in_one_setting_is_refused_by_that_settings_name(folder, images, clip, monkeypatch):
    build_cache(folder, images, NAMES, clip=clip, **SMALL)
    monkeypatch.setattr(clip.processor, "reduce_to", 32, raising=False)
    with pytest.raises(UserError, match="; they differ in reduce_to; give the cache another folder"):
        EmbeddingCache.open(folder, clip)


def test_images_that_are_not_in_the_cache(folder, images, clip):
    cache = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    with pytest.raises(UserError, match=r"2 images have no embedding in .* such as nowhere\.jpg, 03\.png"):
        cache.rows(["00.png", "nowhere.jpg", "03.png", "nowhere.jpg"])


def test_folders_that_hold_no_cache(tmp_path, images, clip):
    with pytest.raises(UserError, match="holds no embeddings"):
        EmbeddingCache.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds other things"):
        build_cache(images, images, NAMES, clip=clip)
    with pytest.raises(UserError, match="holds other things"):
        build_cache(images / NAMES[0], images, NAMES, clip=clip)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "fingerprint.json").write_text("{")
    with pytest.raises(UserError, match="is broken"):
        EmbeddingCache.open(tmp_path / "cache")


def test_pictures_none_of_which_is_there(tmp_path, folder, images, clip):
    for wrong in (tmp_path, tmp_path / "nowhere", images / NAMES[0]):
        with pytest.raises(UserError, match=r"has none of the 30 pictures, such as 00\.png"):
            build_cache(folder, wrong, NAMES, clip=clip)
    with pytest.raises(UserError, match=r"none of 1 pictures .* 03\.png, which is empty"):
        build_cache(folder, images, [NAMES[3]], clip=clip)
    with pytest.raises(UserError, match="none of 0 pictures"):
        build_cache(tmp_path / "empty", images, [], clip=clip)
    assert len(build_cache(folder, images, NAMES, clip=clip)) == 28  # the failed attempts left nothing in the way


def test_a_full_disk_leaves_what_is_finished(folder, images, clip):
    build_cache(folder, images, NAMES[:7], clip=clip, **SMALL)
    written = content(folder)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))  # larger writes fail as on a full disk
    try:
        with pytest.raises(UserError, match=r"cannot be written .* run it again") as caught:
            build_cache(folder, images, NAMES, clip=clip, **SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert content(folder) == written
    assert len(build_cache(folder, images, NAMES, clip=clip, **SMALL)) == 28


def test_embeddings_that_float16_cannot_hold(folder, images, clip, tiny_clip):
    other = load_encoder(tiny_clip)
    with torch.no_grad():
        last_bias(other).add_(1e6)
    with pytest.raises(UserError, match="not finite"):
        build_cache(folder, images, NAMES, clip=other)


def test_a_few_rows_do_not_load_the_cache(tmp_path):
    from helpers.data.shards import Shard

    rows = torch.zeros(60_000, 768, dtype=torch.float16)  # 92 MB
    Shard.of(rows, [str(row) for row in range(60_000)], {}, [None] * 60_000).save(tmp_path / "shard.safetensors")
    del rows

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not tell how much of a process is in memory")
    before = resident()
    shard = Shard.read(tmp_path / "shard.safetensors")
    assert shard.embeddings[torch.tensor([5, 59_999])].float().sum() == 0
    assert resident() - before < 30


def test_a_finished_cache_is_read_while_another_process_holds_it(data, tmp_path):
    encoder, names = load_encoder("tiny"), data.image_names()[:20]
    cache = build_cache(tmp_path / "cache", data.images, names, clip=encoder)
    with only_one(cache.folder, "making part 1/1 of the embeddings"):
        again = build_cache(cache.folder, data.images, names, clip=encoder)
        assert again.rows(names).equal(cache.rows(names))
        with pytest.raises(UserError, match="another process"):
            build_cache(cache.folder, data.images, data.image_names()[:21], clip=encoder)
