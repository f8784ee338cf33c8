"""A static page that captions photos in the browser: an exported captioner, ONNX Runtime for the web, and page/."""

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Template

from ..captions.names import has_picture_ending, stays_inside
from ..data.images import open_picture
from ..errors import UserError
from ..runtime.files import atomic_path, read_object, read_text, write_json
from ..runtime.texts import first_line
from .folder import FILES, INT8, TOKENIZER, read_settings, refuse_other

PAGE = Path(__file__).parent / "page"
SIZES = "sizes.json"  # the bytes of each file
RUNTIME = "onnxruntime-web"
VERSION = "1.30.0"
ADDRESS = f"https://registry.npmjs.org/{RUNTIME}/-/{RUNTIME}-{VERSION}.tgz"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # as npm states it
LIBRARY = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs")
PROGRAM = "ort-wasm-simd-threaded.wasm"  # packed to a quarter, since few hosts do that by themselves


def build_page(
    exported: str | Path, out: str | Path, examples: Path | None = None, *, at_most: int | None = None
) -> dict[str, int]:
    """Build the page in the folder `out`; return the bytes of each of its files.

    exported: an exported captioner, of which the smaller graphs are taken. examples: a folder of pictures to offer; a
    README.md in it may say in a table what each shows and who made it. at_most: the page's largest size in MB.
    Raises UserError if the captioner cannot be shown in a browser, if an example is no picture of that folder, if `out`
    holds something else, if ONNX Runtime for the web is missing and cannot be fetched, or if the page is larger.
    """
    exported, out = Path(exported), Path(out)
    exported = exported / INT8 if (exported / INT8).is_dir() else exported
    read_settings(exported)
    _check_tokenizer(exported / TOKENIZER)
    refuse_other(out, {*(file.name for file in PAGE.iterdir()), SIZES, "captioner", "ort", "examples"}, "such a page")
    shown = _examples(examples)
    runtime = fetch_runtime(out.absolute().parent)
    with atomic_path(out) as partial:
        shutil.copytree(PAGE, partial)
        _copy(exported, FILES, partial / "captioner")
        _unpack(runtime, partial / "ort")
        if examples:
            _copy(examples, [each["file"] for each in shown], partial / "examples")
        index, worker = partial / "index.html", partial / "service-worker.js"
        template = Template(index.read_text("utf-8"), autoescape=True)
        credited = any(each["credit"] for each in shown)
        index.write_text(template.render(examples=shown, credits=credited), encoding="utf-8")
        files = sorted(each for each in partial.rglob("*") if each.is_file())
        small = [quote(each.relative_to(partial).as_posix()) for each in files if each not in (index, worker)
                 and each.parent.name != "captioner" and each.suffix != ".gz"]  # fmt: skip
        values = {"version": _hash_of(files), "first": json.dumps(["./", SIZES, *small])}
        worker.write_text(Template(worker.read_text("utf-8")).render(values), encoding="utf-8")
        sizes = {each.relative_to(partial).as_posix(): each.stat().st_size for each in files}
        megabytes = sum(sizes.values()) / 1e6
        if at_most is not None and megabytes > at_most:
            raise UserError(f"the page for {out} has {megabytes:.1f} MB, but at most {at_most} are allowed: export a "
                            f"smaller captioner; the largest file is {max(sizes, key=sizes.get)}")  # fmt: skip
        write_json(partial / SIZES, dict(sorted(sizes.items())))
    return sizes


def fetch_runtime(folder: Path) -> Path:
    """Return the npm package of ONNX Runtime for the web in `folder`; npm fetches it if it is not there."""
    file = folder / Path(ADDRESS).name
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            npm = ["npm", "pack", f"{RUNTIME}@{VERSION}", "--silent", "--pack-destination", str(folder)]
            subprocess.run(npm, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = "npm is not installed" if isinstance(error, FileNotFoundError) else "npm cannot fetch it"
            raise UserError(f"{RUNTIME} is missing and {reason}: put {ADDRESS} into {folder}") from error
    digest = hashlib.sha512(file.read_bytes()).digest()
    if base64.b64encode(digest).decode() != SHA512:
        raise UserError(f"{file} is not the published {RUNTIME} {VERSION}: delete it and run the command again")
    return file


def _check_tokenizer(file: Path) -> None:
    """Raise UserError unless the page can turn this tokenizer's tokens into text."""
    try:
        decoder = read_object(file).get("decoder") or {}
        first, *others = decoder.get("decoders") or [decoder]
        known = first.get("type") == "ByteLevel" and all("String" in each.get("pattern", ()) for each in others)
    except (OSError, ValueError, AttributeError, LookupError, TypeError) as error:
        raise UserError(f"{file} is no whole tokenizer ({first_line(error)}): export the captioner again") from error
    if not known:
        raise UserError(f"the page knows byte-level tokenizers such as GPT-2's, but this one's decoder is "
                        f"{decoder.get('type')}: caption with clipxgpt predict --runtime onnx")  # fmt: skip


def _unpack(package: Path, folder: Path) -> None:
    folder.mkdir()
    with tarfile.open(package) as archive:
        for name in (*LIBRARY, PROGRAM):
            content = archive.extractfile(f"package/dist/{name}").read()
            if name == PROGRAM:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, 9, mtime=0))
            else:
                (folder / name).write_bytes(content)


def _examples(folder: Path | None) -> list[dict[str, Any]]:
    """Return the pictures in `folder`: its file and address, what it shows, and who made it; the last in HTML.

    Hidden files are left out. Raises UserError on one that is no picture, or a link out of the folder, which may lead
    to what is not meant for the web.
    """
    if folder is None:
        return []
    told, found = _read_credits(folder / "README.md"), []
    for file in sorted(each for each in folder.glob("[!.]*") if has_picture_ending(each.name) and not each.is_dir()):
        open_picture(file)
        if not stays_inside(folder, file):
            raise UserError(f"{file} is a link out of its folder: put the picture itself there, or take it away")
        try:
            address = f"examples/{quote(file.name)}"
        except UnicodeEncodeError:
            raise UserError(f"the name of {file} is not UTF-8, as an address on the web must be: rename it") from None
        shows, credit = told.get(file.name, (file.stem, ""))
        linked = re.sub(r"\[(.+?)\]\((https://[^)\s]+)\)", r'<a href="\2">\1</a>', escape(credit))
        found.append({"file": file.name, "address": address, "shows": shows, "credit": linked})
    return found


def _read_credits(readme: Path) -> dict[str, tuple[str, str]]:
    """Return what each picture shows and who made it, by the table in a README.md; nothing if there is none."""
    try:
        text = read_text(readme) if readme.exists() else ""
    except (OSError, ValueError) as error:
        raise UserError(f"{readme} cannot be read ({first_line(error)}): save it as text in UTF-8") from error
    rows = re.findall(r"^\| (\S+) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return {file: (shows, credit) for file, shows, credit in rows}


def _copy(source: Path, names: Any, folder: Path) -> None:
    folder.mkdir()
    for name in names:
        shutil.copy(source / name, folder / name)


def _hash_of(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(json.dumps([file.name, hashlib.sha256(file.read_bytes()).hexdigest()]).encode())
    return digest.hexdigest()[:16]
