"""Reading captions files of every kind that docs/formats.md shows, and texts to learn from."""

import html
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..errors import UserError
from ..runtime.files import home
from .columns import SPLITS, Row
from .decoding import NO_TEXT, open_text, why_not_utf8
from .folder import folder_rows
from .json_files import begins_like_json, json_rows
from .names import plain_name, same_pictures
from .parquet import is_parquet, parquet_rows
from .tables import OPEN_QUOTE, SWALLOWED_ROW, begins_like_table, table_rows

ENTITY = re.compile(r"&(#\d+|#[xX][0-9a-fA-F]+|\w+);")
TABLES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet"}


def read_captions(
    path: str | Path, *, image_column: str | None = None, caption_column: str | None = None,
    images: str | Path | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Read the captions of a file, or of a folder with a .txt beside each picture, and list the rows left out.

    docs/formats.md shows the kinds of files. HTML entities become their characters, doubled double quotes single ones,
    runs of white space one space. Nothing else in a caption changes.
    image_column, caption_column: the columns' header names, if the file has two that may be meant. images: the folder
    of the pictures, if .txt files lie in another one.

    Returns captions[image_name, caption] (and `split`, if the file has it) in the order of the file, and
    left_out[row, reason, text]; row counts data rows from 0, as pandas does. Raises UserError on a file that is
    missing, of another kind, or without a usable caption.
    """
    captions, left_out = [], []
    chosen = {"image_name": image_column, "caption": caption_column}
    for row in read_rows(path, ("image_name", "caption"), chosen, images=images):
        reason = _why_unusable(row)
        if reason:
            left_out.append((row.number, reason, NO_TEXT.sub("\ufffd", row.text)[:200]))
        else:
            fields = {**row.fields, "image_name": plain_name(row.fields["image_name"])}
            captions.append({**fields, "caption": _clean(fields["caption"])})
    if not captions:
        why = f"row {left_out[0][0]}: {left_out[0][1]}" if left_out else "it has no rows"
        raise UserError(f"{path} holds no usable caption ({why}); give a file with a picture and a caption in each row")
    return pd.DataFrame(captions), pd.DataFrame(left_out, columns=["row", "reason", "text"])


def read_rows(
    path: str | Path, wanted: Sequence[str], chosen: Mapping[str, str | None] | None = None, *,
    images: str | Path | None = None,
) -> Iterator[Row]:  # fmt: skip
    """Return the rows of a captions or splits file of any kind; for the arguments see Columns and read_captions."""
    path, chosen = home(path), chosen or {}
    if is_parquet(path):
        return parquet_rows(path, wanted, chosen)
    if path.is_dir():
        return folder_rows(path, home(images) if images else None)
    if begins_like_json(path):
        return json_rows(path, wanted, chosen)
    return table_rows(path, wanted, chosen)


def _why_unusable(row: Row) -> str | None:
    fields = row.fields
    if reason := why_not_utf8(row.text) or (fields and why_not_utf8("".join(fields.values()))):
        return reason
    if row.reason or fields is None:
        return row.reason or "broken"
    if not fields["image_name"]:
        return "no image name"
    if SWALLOWED_ROW.search(fields["caption"]):
        return OPEN_QUOTE
    if not any(character.isalnum() for character in _clean(fields["caption"])):
        return "empty caption"
    return None


def _clean(caption: str) -> str:
    caption = ENTITY.sub(lambda entity: html.unescape(entity[0]), caption)
    return " ".join(caption.replace('""', '"').split())


def read_text(path: str | Path, *, held_out: bool = False, captions: pd.DataFrame | None = None) -> list[str]:
    """Return the captions of a text file, one per line, or those of a captions file (CSV, JSON lines and so on).

    If the captions file has a column `split`, only the rows for training are read, so nothing held out is learned; with
    held_out, only the others, and none if there is no such column.
    captions: those that a model is trained and judged on, DataFrame[image_name, caption, split]. Texts of their
    held-out pictures are left out, and a warning counts them: by the picture's name, or by the same words if the file
    has neither that picture for training nor a column `split`.
    Raises UserError if the file cannot be read or holds no captions.
    """
    path = home(path)
    found = _table_texts(path) if _is_table(path) else [{"caption": line} for line in _lines(path)]
    if any("split" in fields for fields in found):
        trained = [SPLITS.get(fields.get("split", "").lower()) == "train" for fields in found]
        found = [fields for fields, for_training in zip(found, trained, strict=True) if for_training is not held_out]
    elif held_out:
        found = []
    found = [fields for fields in found if fields["caption"].strip()]
    if not found and not held_out:
        raise UserError(f"{path} holds no captions: give a text file with one caption per line, or a CSV of captions")
    if captions is not None:
        found = _without_held_out(found, captions, path)
    return [fields["caption"].strip() for fields in found]


def _is_table(path: Path) -> bool:
    """Tell whether a file holds a table of captions, by its content or by the ending of its name."""
    if TABLES & {ending.lower() for ending in path.suffixes} or path.is_dir() or is_parquet(path):
        return True
    return begins_like_json(path) or begins_like_table(path)


def _table_texts(path: Path) -> list[dict[str, str]]:
    """Return the fields of each row that has a caption, with the picture's name if the table has one."""
    try:
        rows = list(read_rows(path, ("image_name", "caption")))
    except UserError:
        rows = list(read_rows(path, ("caption",)))
    return [row.fields for row in rows if row.fields and not why_not_utf8(row.text)]


def _lines(path: Path) -> list[str]:
    with open_text(path) as file:
        text = file.read()
    if reason := why_not_utf8(text):
        raise UserError(f"{path} can be read neither as text with one caption per line nor as a CSV of captions: "
                        f"it is {reason}")  # fmt: skip
    return text.splitlines()


def _without_held_out(found: list[dict[str, str]], captions: pd.DataFrame, path: Path) -> list[dict[str, str]]:
    """Return the texts without those of held-out pictures, as `read_text` says."""
    split_of, trains = dict(zip(captions.image_name, captions.split, strict=True)), captions.split == "train"
    known = same_pictures((fields["image_name"] for fields in found if fields.get("image_name")), split_of)
    only_held_out = set(map(_words, captions.caption[~trains])) - set(map(_words, captions.caption[trains]))

    def is_held_out(fields: dict[str, str]) -> bool:
        if picture := known.get(fields.get("image_name", "")):
            return split_of[picture] != "train"
        return "split" not in fields and _words(fields["caption"]) in only_held_out

    kept = [fields for fields in found if not is_held_out(fields)]
    if not kept:
        raise UserError(f"{path} holds captions of held-out pictures only: give other captions")
    if len(kept) < len(found):
        first = next(fields["caption"] for fields in found if is_held_out(fields))
        warnings.warn(f"{len(found) - len(kept)} texts of {path} are of held-out pictures and are left out, such as "
                      f"{first[:60]!r}", stacklevel=3)  # fmt: skip
    return kept


def _words(caption: str) -> str:
    """Return what is compared of two captions: their words, however they are written."""
    return " ".join(re.findall(r"\w+", _clean(caption).casefold()))
