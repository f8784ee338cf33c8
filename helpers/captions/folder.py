"""Captions in a .txt beside each picture, a caption per line."""

from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from .columns import Row
from .decoding import NO_TEXT, open_text
from .names import ENDINGS, has_picture_ending, stays_inside

LONGEST = 100_000  # characters of a .txt; one that is longer holds no captions


def folder_rows(captions: Path, images: Path | None = None) -> Iterator[Row]:
    """Yield a row for each line of the .txt files in the folder `captions`, whose pictures have the same names.

    images: the folder of the pictures, by default the same one. A file's lines share its number. Raises UserError if
    there is no such file.
    """
    images = images or captions
    files = sorted(path for path in captions.rglob("*.txt") if not path.name.startswith("."))
    if not files:
        raise UserError(f"{captions} cannot be read as a table of captions: it is a folder without a .txt beside each "
                        "picture and without Parquet files; give a captions file, or such a folder")  # fmt: skip
    root = captions if captions == images or _has_pictures(captions) else images
    for number, file in enumerate(files):
        name, reason = _picture_of(file, root / file.parent.relative_to(captions))
        if reason is None and not stays_inside(captions, file):
            reason = "a link out of its folder; --follow-links follows it"
        shown = str(file.relative_to(captions))
        try:
            text = "" if reason else _text(file)
        except UserError as error:
            text, reason = "", str(error)
        if reason:
            yield Row(number, None, shown, reason)
            continue
        image_name = (file.parent.relative_to(captions) / name).as_posix()
        for line in [line for line in text.splitlines() if line.strip()] or [""]:
            yield Row(number, {"image_name": image_name, "caption": line.strip()}, f"{shown}: {line}")


def _has_pictures(folder: Path) -> bool:
    return any(has_picture_ending(path.name) for path in folder.rglob("*"))


def _picture_of(file: Path, folder: Path) -> tuple[str, str | None]:
    """Return the name of the picture beside a .txt, and why there is none."""
    if NO_TEXT.search(str(file)):
        return "", "its file name is not UTF-8"
    spelled = {file.with_suffix(ending).name for ending in ENDINGS}
    spelled |= {file.stem + ending.upper() for ending in ENDINGS}
    found = sorted(name for name in spelled if (folder / name).is_file() or (folder / name).is_symlink())
    if len(found) > 1:
        return "", f"two pictures have its name, {found[0]} and {found[1]}"
    return (found[0], None) if found else ("", "no picture has its name")


def _text(file: Path) -> str:
    with open_text(file) as lines:
        text = lines.read(LONGEST + 1)
    if len(text) > LONGEST:
        raise UserError(f"longer than {LONGEST:,} characters")
    return text
