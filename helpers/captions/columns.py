"""Which columns hold the picture's name, its caption and its split; and one row of any file."""

import ast
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError

COLUMNS = {  # the header names of each kind of column
    "image_name": ("image_name", "image", "file_name", "filename", "path", "filepath", "image_path"),
    "caption": ("comment", "caption", "text", "captions", "title", "description", "raw"),
    "split": ("split",),
}
SPLITS = {"train": "train", "restval": "train",  # "restval" is Karpathy's word
          "val": "val", "validation": "val", "valid": "val", "dev": "val", "test": "test"}  # fmt: skip
WORDS = {"image_name": "pictures' names", "caption": "captions", "split": "splits"}
OPTIONS = {"image_name": "--image-column", "caption": "--caption-column"}
NUMBERED = re.compile(r"(.*?)_?\d+")  # caption_0, caption_1, …
MOST_BRACKETS = 20  # in a list of captions; a text with more is no list
NO_COMMAS = re.compile(r"""['"]\s+['"]""")


class NoColumnError(UserError):
    """A column that the user named is not there."""


class Row(NamedTuple):
    """One row of a file.

    number: counted from 0 among the data rows, as pandas does. fields: the text of each kind of column, None if the row
    is broken. text: the row as it stands in the file. reason: why it is broken, if the reader knows.
    """

    number: int
    fields: dict[str, str] | None
    text: str
    reason: str | None = None


class Columns:
    """The places of the columns in a header.

    wanted: the kinds that must be there. chosen: {kind: header name} by the user, who is asked where two may be meant.
    Raises UserError on a missing column, on two that may be meant and on one that is meant for two kinds.
    """

    def __init__(self, path: Path, header: Sequence[str], wanted: Sequence[str], chosen: Mapping[str, str | None]):
        self.path, self.names = path, [re.sub(r"[\s-]+", "_", name.strip(' "\r\n').lower()) for name in header]
        self.chosen, self.options = {kind: name for kind, name in chosen.items() if name}, set(chosen)
        found = {kind: self._places(kind) for kind in COLUMNS if kind in wanted or kind == "split"}
        if both := set(found.get("image_name", ())) & set(found.get("caption", ())):
            kinds = f"the {WORDS['image_name']} and the {WORDS['caption']}"
            raise UserError(f"{path}: column {self.names[both.pop()]} cannot hold both {kinds}: name another one by "
                            f"{' or '.join(OPTIONS.values())}")  # fmt: skip
        self.missing = [kind for kind in wanted if not found[kind]]
        self.needs = needs(self.missing, self.options)
        self.places = {kind: places for kind, places in found.items() if places}

    def _places(self, kind: str) -> list[int]:
        """Return the places of one kind of column: none, one, or those of caption_0, caption_1, …"""
        if kind in self.chosen:
            wish = re.sub(r"[\s-]+", "_", self.chosen[kind].strip().lower())
            accepted: tuple[str, ...] = (wish,)
            if wish not in self.names:
                known = ", ".join(self.names)[:200]
                raise NoColumnError(
                    f"{self.path} has no column {self.chosen[kind]!r} ({OPTIONS[kind]}); it has {known}"
                )
        else:
            accepted = COLUMNS[kind]
        found = {name: [place for place, each in enumerate(self.names) if each == name] for name in accepted}
        if kind == "caption" and kind not in self.chosen:
            for place, name in enumerate(self.names):
                if (numbered := NUMBERED.fullmatch(name)) and numbered[1] in accepted:
                    found.setdefault(f"{numbered[1]}_N", []).append(place)
        found = {name: places for name, places in found.items() if places}
        if len(found) > 1:
            both = " and ".join(found)
            asked = f"say which by {OPTIONS[kind]} NAME" if kind in OPTIONS else "keep one"
            raise UserError(f"{self.path} has more than one column that may hold the {WORDS[kind]}: {both}; {asked}")
        name, places = next(iter(found.items()), ("", []))
        if len(places) > 1 and not name.endswith("_N"):
            raise UserError(f"{self.path} has {len(places)} columns named {name}; rename all but one")
        return places

    def rows(self, number: int, values: Sequence[Any], text: str) -> Iterator[Row]:
        """Yield one row per caption from a row's values, in the order of the header."""
        fields = {}
        for kind in ("image_name", "split"):
            if kind in self.places:
                value = values[self.places[kind][0]]
                plain = isinstance(value, str | int) and not isinstance(value, bool)
                fields[kind] = str(value).strip() if plain else ""
        if "caption" not in self.places:
            yield Row(number, fields, text)
            return
        several = len(self.places["caption"]) > 1
        captions: list[Any] = []
        for place in self.places["caption"]:
            found = as_list(values[place])
            captions += [each for each in found if not several or each not in ("", None)]
        if not captions:
            yield Row(number, {**fields, "caption": ""}, text)
        for caption in captions:
            if isinstance(caption, str):
                yield Row(number, {**fields, "caption": caption.strip()}, text, why_no_list(caption))
            else:
                yield Row(number, None, text, "empty caption" if caption is None else "the caption is no text")


def as_list(value: Any) -> list[Any]:
    """Return the captions in a field, which may be a list or, in a CSV, the text of one: '["a dog", "a cat"]'."""
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, str) or not value.strip().startswith(("['", '["')) or not value.strip().endswith("]"):
        return [value]
    value = value.strip()
    if value.count("[") > MOST_BRACKETS or why_no_list(value):
        return [value]
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            return found
    return [value]


def why_no_list(caption: str) -> str | None:
    """Return what is wrong with a list of captions as NumPy prints it, without commas; None for any other text."""
    if caption.lstrip().startswith(("['", '["')) and NO_COMMAS.search(caption):
        return "a list without commas, as NumPy prints it: save the captions as JSON, or one per row"
    return None


def needs(kinds: Sequence[str], options: Collection[str] = ()) -> str:
    """Return in words which columns are needed. options: the kinds whose column the user may name."""
    return " and ".join(
        f"a column named {' or '.join(COLUMNS[kind])}"
        + (f" or the one that {OPTIONS[kind]} names" if kind in options else "")
        for kind in kinds
    )
