"""The folder of an exported captioner: two graphs, their settings and the tokenizer, for ONNX Runtime and browsers.

    captioner.json   how pictures are prepared and captions are written
    tokenizer.json   token ids to text
    picture.onnx     pixels -> prefix, and how unlike the training pictures a picture is
    language.onnx    prefix or tokens, and the cache of what came before -> scores of the next token, the longer cache
    int8/            the same four files with weights of one byte
    parity.json      how the captions compare with PyTorch's

This module needs neither PyTorch nor ONNX Runtime.
"""

from pathlib import Path
from typing import Any

from ..errors import UserError
from ..runtime.files import read_object

PICTURE, LANGUAGE, SETTINGS, TOKENIZER = "picture.onnx", "language.onnx", "captioner.json", "tokenizer.json"
FILES = (SETTINGS, TOKENIZER, PICTURE, LANGUAGE)
INT8, PARITY = "int8", "parity.json"
VERSION = 1  # of the settings
NUMBER, PIXELS = (int, float), (int, type(None))
FORM = {  # the types of the settings, by part
    "pictures": {"reduce_to": PIXELS, "shortest_edge": PIXELS, "height": int, "width": int, "resample": str,
                 "factor": NUMBER, "mean": list, "std": list},
    "writing": {"endings": list, "longest": int, "length_penalty": NUMBER, "heads": int, "head_width": int},
}  # fmt: skip


def refuse_other(out: Path, made: set[str], what: str) -> None:
    """Raise UserError unless `out` is new, empty, or holds nothing but names of `made`, which will be replaced."""
    held = {path.name for path in out.iterdir()} if out.is_dir() else {out.name} if out.exists() else set()
    if other := held - made:
        raise UserError(f"{out} already holds something else than {what}, such as {min(other)}; name a new folder")


def is_exported(folder: Path) -> bool:
    return (folder / SETTINGS).is_file()


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what captioner.json holds. Raises UserError if the folder is no exported captioner, or not a whole one."""
    if not is_exported(folder):
        raise UserError(
            f"{folder} is no exported captioner: clipxgpt export {folder} --out DIR makes one; give that DIR"
        )
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)}: export the captioner again")
    try:
        settings = read_object(folder / SETTINGS)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / SETTINGS} cannot be read ({error}): export the captioner again") from error
    if settings.get("version") != VERSION:
        raise UserError(f"{folder / SETTINGS} has version {settings.get('version')!r}, but version {VERSION} is read "
                        "here: export the captioner again")  # fmt: skip
    for part, form in FORM.items():
        held = settings.get(part)
        for name, kind in form.items():
            if not (isinstance(held, dict) and name in held and isinstance(held[name], kind)):
                raise UserError(f"{folder / SETTINGS} has no {part}.{name} that can be used: export the captioner "
                                "again")  # fmt: skip
    return settings
