"""Splits by image: drawn, from the captions file's own column, or from a file or lists of names."""

import hashlib
import re
import warnings
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ..errors import UserError
from ..runtime.files import home
from .columns import SPLITS
from .decoding import open_text, why_not_utf8
from .names import plain_name, same_pictures
from .read import read_rows

KNOWN = "train, restval, val (or validation, valid, dev), test"
IN_A_NAME = re.compile(r"(train|validation|valid|val|dev|test)", re.IGNORECASE)


def split_by_image(
    captions: pd.DataFrame, splits: str | Path | None = None, *, val: float = 0.1, test: float = 0.1, seed: int = 0
) -> pd.DataFrame:
    """Add a column `split` of "train", "val" and "test"; all captions of an image are in the same split.

    The split is that of `splits` (see read_splits), else the captions' own column `split`, else drawn: each image by a
    hash of (seed, image_name), so adding images moves none. val and test: shares of the images. Images that `splits`
    does not name are left out, and a warning counts them. Raises UserError on an unknown split, on an image in two of
    them, and on shares that leave nothing to train on.
    """
    names = captions.image_name.unique()
    if splits is not None:
        said = _one_split_each(read_splits(splits), splits)
        chosen = {name: said[known] for name, known in same_pictures(names, said).items()}
    elif "split" in captions:
        chosen = _one_split_each(captions, "the captions file")
    else:
        if val < 0 or test < 0 or val + test >= 1:
            raise UserError(f"val {val} and test {test} must be 0 or more and together below 1, to leave a train split")
        chosen = {name: _draw_split(f"{seed}/{name}", val, test) for name in names}
    captions = captions.assign(split=captions.image_name.map(chosen))
    unnamed = captions.image_name[captions.split.isna()].unique()
    if len(unnamed) == len(names):
        raise UserError(f"{splits} names no image of the captions, such as {unnamed[0]}; give these images' own splits")
    if len(unnamed):
        missing = f"{len(unnamed)} images have no split in {splits} and are left out, such as {unnamed[0]}"
        warnings.warn(missing, stacklevel=2)
    return captions.dropna(subset="split").reset_index(drop=True)


def read_splits(path: str | Path) -> pd.DataFrame:
    """Read the split of each image, DataFrame[image_name, split].

    path: any captions file with a column `split`, or Karpathy's JSON; or lists of names such as Flickr8k's
    Flickr_8k.trainImages.txt, …devImages.txt and …testImages.txt: one of them, or their folder. Raises UserError on
    a file of another kind and on a row that is broken.
    """
    path = home(path)
    if lists := _lists(path):
        rows = [(name, split) for split, file in lists.items() for name in _names(file)]
        return pd.DataFrame(rows, columns=["image_name", "split"])
    found = []
    for row in read_rows(path, ("image_name", "split")):
        fields = row.fields or {}
        if reason := why_not_utf8(row.text) or why_not_utf8("".join(fields.values())):
            raise UserError(f"{path} row {row.number} is {reason}")
        found.append({**fields, "image_name": plain_name(fields["image_name"])} if fields else {})
    return pd.DataFrame(found, columns=["image_name", "split"])


def _lists(path: Path) -> Mapping[str, Path]:
    """Return the list of names of each split, if `path` is such a list or a folder with one set of them."""
    if path.is_dir():
        sets: dict[str, dict[str, Path]] = defaultdict(dict)
        for file in sorted(path.glob("*.txt")):
            if said := IN_A_NAME.search(file.stem):
                sets[IN_A_NAME.sub("*", file.name, count=1)][SPLITS[said[0].lower()]] = file
        whole = [each for each in sets.values() if len(each) > 1]
        if len(whole) > 1:
            files = " and ".join(str(each["train" if "train" in each else "test"].name) for each in whole[:2])
            raise UserError(f"{path} holds more than one set of lists of names: give one of its files, {files}")
        return whole[0] if whole else {}
    if path.suffix != ".txt" or not IN_A_NAME.search(path.stem) or not path.is_file():
        return {}
    with open_text(path) as lines:
        if re.search(r"[,;\t|{\[]", lines.readline(1000)):
            return {}
    pattern = IN_A_NAME.sub("*", path.name, count=1)
    beside = [file for file in sorted(path.parent.glob("*.txt")) if IN_A_NAME.sub("*", file.name, count=1) == pattern]
    return {SPLITS[IN_A_NAME.search(file.stem)[0].lower()]: file for file in beside if IN_A_NAME.search(file.stem)}


def _names(file: Path) -> list[str]:
    with open_text(file) as lines:
        text = lines.read()
    if reason := why_not_utf8(text):
        raise UserError(f"{file} is {reason}")
    return [plain_name(line.strip()) for line in text.splitlines() if line.strip()]


def _draw_split(key: str, val: float, test: float) -> str:
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "test" if share < test else "val" if share < test + val else "train"


def _one_split_each(table: pd.DataFrame, source: str | Path) -> dict[str, str]:
    """Return {image_name: split} from a table in which an image may have several rows."""
    table = table[["image_name", "split"]]
    if table.empty or table.isna().any(axis=None) or (table == "").any(axis=None):
        raise UserError(f"{source} has no rows, or one without its fields; give an image_name and a split in each row")
    table = table.drop_duplicates()
    known = table.split.str.lower().map(SPLITS)
    if known.isna().any():
        name, split = table[known.isna()].iloc[0]
        raise UserError(f"{source} puts {name} into split {split!r}; a split is one of {KNOWN}")
    table = table.assign(split=known).drop_duplicates()
    twice = table[table.image_name.duplicated(keep=False)]
    if len(twice):
        name = twice.image_name.iloc[0]
        both = " and ".join(twice.split[twice.image_name == name])
        raise UserError(f"{source} puts {name} into {both}; an image may stand in one split only")
    return dict(zip(table.image_name, table.split, strict=True))
