"""Reading captions files (Flickr30k's `results.csv` from Kaggle, or any CSV), and splitting them by image."""

import csv
import gzip
import hashlib
import html
import io
import json
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ..errors import UserError

COLUMNS = {  # the header names of each kind of column
    "image_name": ("image_name", "image", "file_name", "filename"),
    "caption": ("comment", "caption", "text"),
    "split": ("split",),
}
SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}  # "restval" is Karpathy's word
ENTITY = re.compile(r"&(#\d+|#[xX][0-9a-fA-F]+|\w+);")
SWALLOWED_ROW = re.compile(r"[\r\n][^\r\n,;\t]+\.\w{3,4}[,;\t]")
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # "surrogateescape" turns a byte that is not UTF-8 into one of these


def read_captions(path: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the captions of a file, and list the rows that cannot be used.

    The file is Kaggle's `image_name| comment_number| comment`, or any whose header names an image and a caption column
    (see COLUMNS), separated by comma, semicolon or tab; gzipped or not. HTML entities become their characters, doubled
    double quotes single ones, runs of white space one space. Nothing else in a caption changes.

    Returns captions[image_name, caption] (and `split`, if the file has it) in the order of the file, and
    left_out[row, reason, text]; row counts data rows from 0, as pandas does. Raises UserError on a file that is
    missing, of another kind, or without a usable caption.
    """
    captions, left_out = [], []
    for row, (fields, text) in enumerate(table_rows(Path(path), ("image_name", "caption"))):
        reason = _why_unusable(fields, text)
        if reason:
            left_out.append((row, reason, NOT_UTF8.sub("\ufffd", text)[:200]))
        else:
            captions.append({**fields, "caption": _clean(fields["caption"])})
    if not captions:
        why = f"row 0: {left_out[0][1]}" if left_out else "it has no rows"
        raise UserError(f"{path} holds no usable caption ({why}); give a file with a picture and a caption in each row")
    return pd.DataFrame(captions), pd.DataFrame(left_out, columns=["row", "reason", "text"])


def split_by_image(
    captions: pd.DataFrame, splits: str | Path | None = None, *, val: float = 0.1, test: float = 0.1, seed: int = 0
) -> pd.DataFrame:
    """Add a column `split` of "train", "val" and "test"; all captions of an image are in the same split.

    The split is that of the file `splits` (columns image_name and split, or Karpathy's JSON), else the captions' own
    column `split`, else drawn: each image by a hash of (seed, image_name), so adding images moves none. val and test:
    shares of the images. Images that a splits file does not name are left out, and a warning counts them. Raises
    UserError on an unknown split, on an image in two of them, and on shares that leave nothing to train on.
    """
    if splits is not None:
        chosen = _one_split_each(_read_splits(Path(splits)), splits)
    elif "split" in captions:
        chosen = _one_split_each(captions, "the captions file")
    else:
        if val < 0 or test < 0 or val + test >= 1:
            raise UserError(f"val {val} and test {test} must be 0 or more and together below 1, to leave a train split")
        chosen = {name: _draw_split(f"{seed}/{name}", val, test) for name in captions.image_name.unique()}
    captions = captions.assign(split=captions.image_name.map(chosen))
    unnamed = captions.image_name[captions.split.isna()].unique()
    if len(unnamed) == captions.image_name.nunique():
        raise UserError(f"{splits} names no image of the captions, such as {unnamed[0]}; give these images' own splits")
    if len(unnamed):
        missing = f"{len(unnamed)} images have no split in {splits} and are left out, such as {unnamed[0]}"
        warnings.warn(missing, stacklevel=2)
    return captions.dropna(subset="split").reset_index(drop=True)


def _read_splits(path: Path) -> pd.DataFrame:
    if path.suffix == ".json":
        return read_karpathy(path)
    return pd.DataFrame([fields or {} for fields, _ in table_rows(path, ("image_name", "split"))])


def _draw_split(key: str, val: float, test: float) -> str:
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "test" if share < test else "val" if share < test + val else "train"


def _one_split_each(table: pd.DataFrame, source: str | Path) -> dict[str, str]:
    """Return {image_name: split} from a table in which an image may have several rows."""
    if table.empty or table[["image_name", "split"]].isna().any(axis=None):
        raise UserError(f"{source} has no rows, or one without its fields; give an image_name and a split in each row")
    table = table[["image_name", "split"]].drop_duplicates()
    unknown = table[~table.split.isin(SPLITS)]
    if len(unknown):
        name, split = unknown.iloc[0]
        raise UserError(f"{source} puts {name} into split {split!r}; a split is one of {', '.join(SPLITS)}")
    table = table.assign(split=table.split.map(SPLITS)).drop_duplicates()
    twice = table[table.image_name.duplicated(keep=False)]
    if len(twice):
        name = twice.image_name.iloc[0]
        both = " and ".join(twice.split[twice.image_name == name])
        raise UserError(f"{source} puts {name} into {both}; an image may stand in one split only")
    return dict(zip(table.image_name, table.split, strict=True))


def _why_unusable(fields: dict[str, str] | None, text: str) -> str | None:
    if NOT_UTF8.search(text):
        return "not UTF-8"
    if fields is None:
        return "not as many fields as the header"
    if not fields["image_name"]:
        return "no image name"
    if SWALLOWED_ROW.search(fields["caption"]):
        return "an unclosed quote runs into the next row"
    if not any(character.isalnum() for character in _clean(fields["caption"])):
        return "empty caption"
    return None


def _clean(caption: str) -> str:
    caption = ENTITY.sub(lambda entity: html.unescape(entity[0]), caption)
    return " ".join(caption.replace('""', '"').split())


def table_rows(path: Path, wanted: tuple[str, str]) -> Iterator[tuple[dict[str, str] | None, str]]:
    """Yield each data row as {kind of column: field}, None if their number is wrong, and as text."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if packed else file
            lines = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
            header = lines.readline(10_000)
            delimiter = next((character for character in "|\t;," if character in header), ",")
            names = [name.strip(' "\r\n').lower() for name in header.split(delimiter)]
            places = {what: names.index(found) for what, accepted in COLUMNS.items()
                      if (found := next((name for name in accepted if name in names), None))}  # fmt: skip
            if missing := [what for what in wanted if what not in places]:
                raise UserError(_another_kind(path, header, missing))
            for fields, text in _piped(lines, len(names)) if delimiter == "|" else _separated(lines, delimiter):
                right = len(fields) == len(names)
                yield {what: fields[place].strip() for what, place in places.items()} if right else None, text
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give the path of a CSV file") from None
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table ({error}); give a whole CSV file, gzipped or not") from None


def _another_kind(path: Path, header: str, missing: list[str]) -> str:
    needs = " and ".join(f"a column named {' or '.join(COLUMNS[what])}" for what in missing)
    if not header:
        return f"{path} is empty; it needs {needs}"
    if NOT_UTF8.search(header) or min(header) < "\t":
        return f"{path} is no text in UTF-8; give a CSV file with {needs}"
    return f"{path} begins with {header.strip()[:60]!r}, where a header with {needs} is needed"


def _piped(lines: Iterator[str], columns: int) -> Iterator[tuple[list[str], str]]:
    """Split Kaggle's layout: one row per line, quotes mean nothing, and the last field may hold more separators."""
    for line in lines:
        line = line.rstrip("\r\n")
        if line.strip():
            yield [_unquote(field) for field in line.split("|", columns - 1)], line


def _separated(lines: Iterator[str], delimiter: str) -> Iterator[tuple[list[str], str]]:
    for fields in csv.reader(lines, delimiter=delimiter, skipinitialspace=True):
        if any(fields):
            yield fields, delimiter.join(fields)


def _unquote(field: str) -> str:
    """Remove the quotes that a CSV writer put around a field, and no others."""
    quoted = len(field) > 1 and field[0] == field[-1] == '"' and '"' not in field[1:-1].replace('""', "")
    return field[1:-1].replace('""', '"') if quoted else field


def read_karpathy(path: Path) -> pd.DataFrame:
    """Read the split of each image, DataFrame[image_name, split], from `{"images": [{"filename": …, "split": …}, …]}`.

    Raises UserError on a file that is missing or has another form.
    """
    try:
        images = json.loads(path.read_text(encoding="utf-8"))["images"]
        return pd.DataFrame(
            [(str(image["filename"]), str(image["split"])) for image in images], columns=["image_name", "split"]
        )
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give the path of Karpathy's dataset_flickr30k.json") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path} is not in the form of Karpathy's dataset_flickr30k.json ({type(error).__name__}: {error}); give "
            'that file with its "images", each with a "filename" and a "split", or a CSV image_name,split'
        ) from None


def read_text(path: str | Path, *, held_out: bool = False) -> list[str]:
    """Return the captions of a text file, one per line, or of a CSV with a column `comment` or `caption` (.gz or not).

    If the CSV has a column `split`, only the rows for training are read, so nothing held out is learned; with held_out,
    only the others, and none if there is no such column. Raises UserError if the file cannot be read or holds no
    captions.
    """
    path = Path(path)
    try:
        if ".csv" in path.suffixes:
            lines = _text_column(path, held_out=held_out)
        else:
            lines = [] if held_out else path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can be read neither as text with one caption per line nor as a CSV of captions ({error})"
        ) from error
    captions = [line.strip() for line in lines if line.strip()]
    if not captions and not held_out:
        raise UserError(f"{path} holds no captions: give a text file with one caption per line, or a CSV of captions")
    return captions


def _text_column(path: Path, *, held_out: bool) -> list[str]:
    table = pd.read_csv(path, keep_default_na=False)  # a caption may be the word "NA"
    column = next((name for name in ("comment", "caption") if name in table.columns), None)
    if column is None:
        raise UserError(
            f"{path} has the columns {', '.join(table.columns)}, but needs one named comment or caption: rename one"
        )
    if "split" not in table.columns:
        return [] if held_out else [str(caption) for caption in table[column]]
    training = table["split"].map(SPLITS) == "train"
    return [str(caption) for caption in table[column][~training if held_out else training]]
