"""The page for browsers is built whole, or not at all, with one line on what is missing."""

import base64
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from helpers.cli import main
from helpers.errors import UserError
from helpers.export import web_page
from helpers.export.folder import FILES, FORM, NUMBER, PIXELS

EXAMPLES = {PIXELS: 32, NUMBER: 1.0, int: 32, str: "bicubic", list: [1]}  # a value of each kind


@pytest.fixture
def exported(tmp_path):
    """A folder with the names of an exported captioner's files."""
    for folder in (tmp_path / "exported", tmp_path / "exported" / "int8"):
        folder.mkdir()
        for name in FILES:
            settings = {part: {each: EXAMPLES[kind] for each, kind in form.items()} for part, form in FORM.items()}
            content = {"version": 1, "decoder": {"type": "ByteLevel"}, "in": folder.name, **settings}
            (folder / name).write_text(json.dumps(content))
    return tmp_path / "exported"


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """A package like that of ONNX Runtime for the web, where the page looks for it."""
    file = tmp_path / "onnxruntime-web-1.30.0.tgz"
    with tarfile.open(file, "w:gz") as archive:
        for name in (*web_page.LIBRARY, web_page.PROGRAM):
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    digest = hashlib.sha512(file.read_bytes()).digest()
    monkeypatch.setattr(web_page, "SHA512", base64.b64encode(digest).decode())
    return file


def test_the_page_is_whole(exported, runtime, tmp_path, capsys):
    examples = tmp_path / "photos"
    examples.mkdir()
    for name in ("a&b.jpg", "<i>.png"):
        Image.new("RGB", (2, 2)).save(examples / name)
    for name in ("notes.txt", "._a&b.jpg"):
        (examples / name).write_bytes(b"0")
    rows = "| file | shows | who |\n|---|---|---|\n| <i>.png | a <b>cat</b> | [Ann](https://example.org/?a&b), CC0 |\n"
    (examples / "README.md").write_text(rows)
    out = tmp_path / "page"
    main(["page", str(exported), "--out", str(out), "--examples", str(examples), "--at-most", "1"])
    assert f"the page lies in {out}, 0.0 MB" in capsys.readouterr().out
    assert json.loads((out / "captioner" / "captioner.json").read_text())["in"] == "int8"
    assert gzip.decompress((out / "ort" / f"{web_page.PROGRAM}.gz").read_bytes()) == web_page.PROGRAM.encode()
    index = (out / "index.html").read_text()
    assert index.count("data-photo=") == 2
    assert 'data-name="a&amp;b.jpg"' in index
    assert 'alt="a &lt;b&gt;cat&lt;/b&gt;"' in index
    assert 'a &lt;b&gt;cat&lt;/b&gt;: <a href="https://example.org/?a&amp;b">Ann</a>, CC0' in index
    assert "{" not in index
    sizes = json.loads((out / "sizes.json").read_text())
    assert sizes["captioner/picture.onnx"] == (out / "captioner" / "picture.onnx").stat().st_size
    first = json.loads((out / "service-worker.js").read_text().split("FIRST = ")[1].split(";")[0])
    assert {"./", "demo.js", "ort/ort.wasm.min.mjs", "examples/a%26b.jpg"} <= set(first)
    assert not any(name.startswith("captioner/") for name in first)
    version = (out / "service-worker.js").read_text()
    (exported / "int8" / "language.onnx").write_text("another")
    web_page.build_page(exported, out, examples)  # in the place of the first
    assert (out / "service-worker.js").read_text() != version


def test_a_page_that_is_too_large_does_not_take_the_place_of_the_last(exported, runtime, tmp_path, capsys):
    page = ["page", str(exported), "--out", str(tmp_path / "page"), "--at-most"]
    main([*page, "1"])
    (exported / "int8" / "language.onnx").write_bytes(bytes(2_000_000))
    for most, said in (("1", "has 2.0 MB, but at most 1 are allowed: export a smaller captioner"),
                       ("-3", "--at-most is -3, but must be at least 1")):  # fmt: skip
        with pytest.raises(SystemExit):
            main([*page, most])
        assert said in capsys.readouterr().err
    assert (tmp_path / "page" / "captioner" / "language.onnx").stat().st_size < 1000


def test_only_pictures_of_the_folder_are_published(exported, runtime, tmp_path, capsys):
    examples, secret = tmp_path / "photos", tmp_path / "secret.jpg"
    examples.mkdir()
    Image.new("RGB", (2, 2)).save(secret)
    page = ["page", str(exported), "--out", str(tmp_path / "page"), "--examples", str(examples)]

    def refused() -> str:
        with pytest.raises(SystemExit):
            main(page)
        assert not (tmp_path / "page").exists()
        return capsys.readouterr().err

    assert f"{examples} has no picture: give a folder" in refused()
    for name, make, said in (
        ("secret.jpg", lambda file: file.symlink_to(secret), "is a link out of its folder: put the picture itself"),
        ("host.jpg", lambda file: file.symlink_to("/etc/hostname"), "host.jpg is "),
        ("zero.jpg", Path.touch, "is empty (0 bytes); give a whole picture"),
        (os.fsdecode(b"bad\xff.jpg"), lambda file: shutil.copy(secret, file), "bad\\xff.jpg is not UTF-8, as an"),
    ):
        make(examples / name)
        assert said in refused()
        (examples / name).unlink()
    shutil.copy(secret, examples)
    (examples / "README.md").write_bytes("| secret.jpg | a café | Ann |".encode("cp1252"))
    assert "README.md cannot be read ('utf-8' codec can't decode byte 0xe9" in refused()


def test_what_is_missing_is_said_in_a_line(exported, runtime, tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()
    with pytest.raises(UserError, match="taken already holds something else than such a page, such as thesis"):
        web_page.build_page(exported, tmp_path / "taken")
    (exported / "int8" / "tokenizer.json").write_text('{"decoder": {"type": "WordPiece"}}')
    with pytest.raises(UserError, match="but this one's decoder is WordPiece: caption with clipxgpt predict"):
        web_page.build_page(exported, tmp_path / "page")
    for cut in ("[", '{"decoder": "x"}', '{"decoder": {"decoders": [1]}}'):
        (exported / "int8" / "tokenizer.json").write_text(cut)
        with pytest.raises(UserError, match=r"tokenizer\.json is no whole tokenizer \(.*\): export the"):
            web_page.build_page(exported, tmp_path / "page")
    shutil.rmtree(exported / "int8")
    runtime.write_bytes(b"cut")
    with pytest.raises(UserError, match=r"1\.30\.0\.tgz is not the published onnxruntime-web 1\.30\.0: delete it"):
        web_page.build_page(exported, tmp_path / "page")
    runtime.unlink()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        UserError, match=r"onnxruntime-web is missing and npm is not installed: put https://registry\.npm"
    ):
        web_page.build_page(exported, tmp_path / "page")
    with pytest.raises(UserError, match="is no exported captioner"):
        web_page.build_page(tmp_path, tmp_path / "page")
    assert not (tmp_path / "page").exists()
