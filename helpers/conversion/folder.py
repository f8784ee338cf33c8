"""The folder of a conversion: made whole, and never in the place of something else."""

import hashlib
from pathlib import Path

from ..errors import UserError

CARD = "README.md"  # the model card, by which an earlier conversion of the same weights is known
CAPTIONERS_CARD = """# A captioner of {origin}

CLIPxGPT Captioner converted it from the file {file} with the SHA-256
{sha256}.
It writes the captions that it wrote there. What it was trained on, and its license, are told by whoever published the
file.

`clipxgpt predict -C FOLDER photo.jpg` captions a photo; `clipxgpt train --start-from FOLDER` trains it further.
"""
ENCODERS_CARD = """# The vision tower of a CLIP

CLIPxGPT Captioner converted it from open_clip's file {file} with the SHA-256
{sha256}.
It loads this folder: `clipxgpt train --clip FOLDER`. What it was trained on, and its license, are told by whoever
published the file.
"""
CAPTIONERS_FILES = {"generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                    "vocab.json", "merges.txt", "vocab.txt"}  # fmt: skip
MADE = {"config.json", "model.safetensors", "preprocessor_config.json", CARD}  # the files of an encoder


def refuse_other(out: Path, card: str, made: set[str] = MADE) -> None:
    """Raise UserError unless a folder with this model card can be made at `out`, or be replaced there.

    made: the files of such a folder.
    """
    if out.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise UserError(f"{out} is the folder that you are in, or is above it; name a new folder")
    if not out.exists():
        return
    held = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    if not held:
        return
    if not held <= made or CARD not in held or (out / CARD).read_text("utf-8", "replace") != card:
        raise UserError(f"{out} already holds something else, such as {min(held - made or held)}; name a new folder")


def captioner_card(origin: str, file: Path) -> str:
    """Return the model card of a captioner converted from a file of `origin`, in Markdown."""
    return CAPTIONERS_CARD.format(origin=origin, file=file.name, sha256=hash_of(file))


def encoder_card(file: Path) -> str:
    """Return the model card of a CLIP's vision tower converted from a file of open_clip, in Markdown."""
    return ENCODERS_CARD.format(file=file.name, sha256=hash_of(file))


def hash_of(file: Path) -> str:
    """Return the SHA-256 of a file. Raises UserError if it is none."""
    if not file.is_file():
        raise UserError(f"{file} is no file; give the file of published weights")
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
