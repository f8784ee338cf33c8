"""A row is that of the picture's own file: one that has changed is embedded again, and names are covered by a hash."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from helpers.data.build_cache import build_cache
from helpers.data.changes import Changes, picture_hashes
from helpers.data.embedding_cache import EmbeddingCache
from helpers.data.images import open_picture
from helpers.data.shards import PictureFile, Shard
from helpers.encoders.vision import ImageEncoder
from helpers.errors import UserError
from helpers.models.loading import load_encoder

NAMES = [f"{number:02}.png" for number in range(20)]
SMALL = {"batch_size": 4, "shard_size": 7}


@pytest.fixture(scope="module")
def clip(tiny_clip) -> ImageEncoder:
    return load_encoder(tiny_clip)


def draw(folder: Path, seed: int, names: list[str] = NAMES) -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def images(tmp_path) -> Path:
    return draw(tmp_path / "photos", 0)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_rows_of(cache: EmbeddingCache, images: Path, names: list[str], clip: ImageEncoder) -> None:
    expected = clip.embed([open_picture(images / name) for name in names])
    torch.testing.assert_close(cache.rows(names), expected, atol=2e-3, rtol=2e-3)


def test_a_changed_picture_is_embedded_again_and_the_others_stay(folder, images, clip, capsys):
    before = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    kept = before.rows([name for name in NAMES if name not in NAMES[3:5]])
    draw(images, 1, NAMES[3:5])
    capsys.readouterr()
    cache = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert f"2 pictures in {images} have changed and are embedded again, such as 03.png" in capsys.readouterr().err
    assert sorted(cache.image_names) == NAMES
    assert torch.equal(cache.rows([name for name in NAMES if name not in NAMES[3:5]]), kept)
    assert_rows_of(cache, images, NAMES[3:5], clip)
    cache.verify()
    written = content(folder)
    build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert content(folder) == written
    assert "have changed" not in capsys.readouterr().err


def test_other_pictures_of_the_same_names_give_the_cache_that_they_alone_give(tmp_path, folder, images, clip):
    others = draw(tmp_path / "others", 1)
    build_cache(folder, images, NAMES, clip=clip, **SMALL)
    build_cache(folder, others, NAMES, clip=clip, **SMALL)
    build_cache(tmp_path / "alone", others, NAMES, clip=clip, **SMALL)
    assert content(folder) == content(tmp_path / "alone")


def test_a_changed_name_cannot_color_the_terminal(capsys, images):
    Changes({"\x1b[31mred.png"}, {}, 0, 0).report(images)
    assert capsys.readouterr().err.endswith("such as \\x1b[31mred.png\n")


def test_a_file_of_the_same_size_is_told_by_its_contents(folder, images, clip):
    for name, gray in ((NAMES[0], 10), (NAMES[1], 200)):  # uncompressed, so that both have one size
        Image.new("RGB", (40, 40), (gray,) * 3).save(images / name, format="bmp")
    build_cache(folder, images, NAMES, clip=clip, **SMALL)
    (images / NAMES[0]).write_bytes((images / NAMES[1]).read_bytes())
    cache = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert_rows_of(cache, images, NAMES[:2], clip)


def test_a_copy_of_the_pictures_is_read_once_and_not_embedded_again(folder, images, clip, tmp_path, monkeypatch):
    rows = build_cache(folder, images, NAMES, clip=clip, **SMALL).rows(NAMES)
    copy = shutil.copytree(images, tmp_path / "copy", copy_function=shutil.copyfile)
    for number, name in enumerate(NAMES):
        os.utime(copy / name, (number, number))
    monkeypatch.delattr(ImageEncoder, "see")
    read, original = [], PictureFile.of
    monkeypatch.setattr(PictureFile, "of", lambda path: read.append(path) or original(path))
    for _ in range(2):
        assert torch.equal(build_cache(folder, copy, NAMES, clip=clip, **SMALL).rows(NAMES), rows)
    assert len(read) == len(NAMES)


def test_a_picture_that_is_broken_now_loses_its_row(folder, images, clip):
    build_cache(folder, images, NAMES, clip=clip, **SMALL)
    (images / NAMES[2]).write_bytes(b"no picture any more")
    cache = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert cache.left_out.image_name.tolist() == [NAMES[2]]
    assert sorted(cache.image_names) == [name for name in NAMES if name != NAMES[2]]


def test_pictures_that_are_gone_keep_their_rows_and_are_counted(folder, images, clip, capsys):
    build_cache(folder, images, NAMES, clip=clip, **SMALL)
    for name in NAMES[:3]:
        (images / name).unlink()
    os.mkfifo(images / NAMES[0])  # it must not be waited for
    cache = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert sorted(cache.image_names) == NAMES
    assert f"3 pictures are not in {images} any more: their embeddings of before are used" in capsys.readouterr().err


def as_before(folder: Path) -> None:
    """Rewrite the shards as they were when they held no files, and no hash of their names."""
    for path in folder.glob("shard-*"):
        with safe_open(path, "pt") as file:
            rows, metadata = file.get_tensor("embeddings").clone(), file.metadata()
        save_file({"embeddings": rows}, path, metadata)


def test_a_file_that_was_not_recorded_has_no_hash(folder, images, clip):
    cache = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    digest = hashlib.sha256((images / NAMES[0]).read_bytes()).hexdigest()
    assert picture_hashes(cache, [NAMES[0], "none.png"]) == {NAMES[0]: digest[:16]}
    as_before(folder)
    assert picture_hashes(EmbeddingCache.open(folder), NAMES) == {}


def test_a_cache_of_before_is_completed_without_embedding_again(folder, images, clip, capsys, monkeypatch):
    rows = build_cache(folder, images, NAMES, clip=clip, **SMALL).rows(NAMES)
    written = content(folder)
    as_before(folder)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.delattr(ImageEncoder, "see")
        cache = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert "20 embeddings are of before files were recorded: they are taken for those" in capsys.readouterr().err
    assert torch.equal(cache.rows(NAMES), rows)
    assert content(folder) == written
    build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert capsys.readouterr().err == ""
    draw(images, 1, NAMES[:1])
    assert_rows_of(build_cache(folder, images, NAMES, clip=clip, **SMALL), images, NAMES[:1], clip)


def test_a_cache_of_before_on_a_read_only_disk_opens_as_it_is(folder, images, clip, monkeypatch):
    rows = build_cache(folder, images, NAMES, clip=clip, **SMALL).rows(NAMES)
    as_before(folder)
    written = content(folder)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as root may write anyway
    monkeypatch.delattr(ImageEncoder, "see")
    assert torch.equal(build_cache(folder, images, NAMES, clip=clip, **SMALL).rows(NAMES), rows)
    assert content(folder) == written


def change_record(path: Path, change) -> None:
    """Change the names and reasons in a shard's file, and nothing else."""
    with safe_open(path, "pt") as file:
        names, record = file.keys(), json.loads(file.metadata()["shard"])
        tensors = {name: file.get_tensor(name).clone() for name in names}
    change(record)
    save_file(tensors, path, {"shard": json.dumps(record)})


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["image_names"].pop(2),
        lambda record: record["image_names"].append("more.png"),
        lambda record: record["image_names"].reverse(),
        lambda record: record["image_names"].__setitem__(0, "other.png"),
        lambda record: record["image_names"].__setitem__(0, record["image_names"][1]),
        lambda record: record["left_out"].clear(),
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_a_changed_list_of_names_is_noticed_and_made_anew(folder, images, clip, change, older):
    (images / NAMES[3]).write_bytes(b"")
    build_cache(folder, images, NAMES, clip=clip, **SMALL)
    if older:
        as_before(folder)
        build_cache(folder, images, NAMES, clip=clip, **SMALL)  # completes it
    rows, written = EmbeddingCache.open(folder).rows(NAMES[:3]), content(folder)
    change_record(folder / "shard-00000.safetensors", change)
    with pytest.raises(UserError, match=r"shard-00000.safetensors is broken .*build the cache again"):
        EmbeddingCache.open(folder).verify()
    cache = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert torch.equal(cache.rows(NAMES[:3]), rows)
    assert content(folder) == written


def test_a_name_missing_in_a_shard_of_before_is_noticed_by_their_number(folder, images, clip):
    build_cache(folder, images, NAMES, clip=clip, **SMALL)
    as_before(folder)
    change_record(folder / "shard-00000.safetensors", lambda record: record["image_names"].pop(2))
    with pytest.raises(UserError, match=r"is broken \(it has 7 rows, 6 names and 6 files\)"):
        EmbeddingCache.open(folder)
    assert_rows_of(build_cache(folder, images, NAMES, clip=clip, **SMALL), images, NAMES, clip)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_are_refused_and_made_anew(folder, images, clip, value):
    rows = build_cache(folder, images, NAMES, clip=clip, **SMALL).rows(NAMES)
    path = folder / "shard-00001.safetensors"
    shard = Shard.read(path)
    wrong = shard.embeddings.clone()
    wrong[2, 5] = value
    Shard.of(wrong, shard.image_names, shard.left_out, shard.files).save(path)
    for use in (lambda cache: cache.rows(NAMES), lambda cache: cache.verify()):
        with pytest.raises(UserError, match=r"shard-00001.safetensors is broken \(.*not finite\)"):
            use(EmbeddingCache.open(folder))
    assert torch.equal(build_cache(folder, images, NAMES, clip=clip, **SMALL).rows(NAMES), rows)


def test_a_shard_cut_while_it_is_in_use_is_named(folder, images, clip):
    cache = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    path = folder / "shard-00001.safetensors"
    with path.open("r+b") as file:  # the same file, whose pages would be gone
        file.truncate(100)
    cache.rows(NAMES[:7])
    with pytest.raises(UserError, match=r"shard-00001.safetensors was cut while it was in use"):
        cache.rows(NAMES[7:])


def test_a_shard_replaced_while_it_is_in_use_is_read_on(folder, images, clip):
    cache = build_cache(folder, images, NAMES, clip=clip, **SMALL)
    rows = cache.rows(NAMES)
    draw(images, 1)
    build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert torch.equal(cache.rows(NAMES), rows)


def test_a_finished_cache_with_a_picture_left_out_needs_no_lock(folder, images, clip):
    from helpers.runtime.files import only_one

    (images / NAMES[3]).write_bytes(b"")
    build_cache(folder, images, NAMES, clip=clip, **SMALL)
    written = content(folder)
    with only_one(folder, "making part 1/1 of the embeddings"):
        build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert content(folder) == written


def test_a_disk_without_room_is_refused_before_anything_is_embedded(folder, images, clip, monkeypatch):
    usage = shutil.disk_usage(images)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"no space left for .* GB of embeddings in .*: make room, or give the cache"):
        build_cache(folder, images, NAMES, clip=clip, **SMALL)
    assert not list(folder.glob("shard*"))
