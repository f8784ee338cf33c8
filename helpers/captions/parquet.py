"""Captions files in Parquet, as the Hugging Face hub has Flickr8k and Flickr30k, with or without the pictures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..runtime.files import atomic_path, only_one
from ..runtime.texts import shown
from .columns import COLUMNS, SPLITS, Columns, Row
from .names import plain_name

MAGIC = b"PAR1"
SHOWN = 200  # characters of a row that are shown
PICTURES = {*COLUMNS["image_name"], "img", "picture", "jpg", "jpeg", "png"}  # columns that may hold files
AT_A_TIME = 64  # pictures that are held in memory


def is_parquet(path: Path) -> bool:
    """Return whether `path` is a Parquet file, or a folder that holds some."""
    if path.is_dir():
        return any(path.rglob("*.parquet"))
    if path.suffix == ".parquet" or not path.is_file():
        return path.suffix == ".parquet"
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def parquet_rows(path: Path, wanted: Sequence[str], chosen: Mapping[str, str | None]) -> Iterator[Row]:
    """Yield the rows of a Parquet file, or of all in a folder.

    In a folder, train-….parquet, validation-….parquet and test-….parquet, or folders of such names, are splits if the
    file has none of its own.
    A picture inside is named by the file's column of names, else by the name that is stored with it, else by its row.
    Raises UserError without pyarrow and on a file that is broken or lacks a column.
    """
    with _arrow(path) as parquet:
        number = 0
        for file, split in _files(path):
            table = _Table(parquet.ParquetFile(file), file, wanted, chosen)
            for values in table.read(table.light):
                row = table.columns.rows(number, table.values(values), str(values)[:SHOWN])
                for each in row:
                    fields = each.fields
                    if fields is not None and split and "split" not in fields:
                        fields = {**fields, "split": split}
                    yield each._replace(fields=fields)
                number += 1


def unpack_pictures(path: Path, folder: Path, chosen: Mapping[str, str | None]) -> int:
    """Write the pictures inside a Parquet file, or those of a folder, into `folder`; return how many were new.

    Raises UserError if a name leads out of the folder, or if there is another picture of that name.
    """
    new, seen = 0, set()
    with only_one(folder, "unpacking pictures"), _arrow(path) as parquet:  # under torchrun each process comes here
        for file, _ in _files(path):
            table = _Table(parquet.ParquetFile(file), file, ("image_name",), chosen)
            for values in table.read([*table.light, table.picture] if table.picture else []):
                content = values[table.picture]
                content = content.get("bytes") if isinstance(content, dict) else content
                name = plain_name(str(table.values(values)[table.columns.places["image_name"][0]]))
                if not content:
                    continue
                if name.startswith("/") or ".." in Path(name).parts or "\0" in name or not name:
                    raise UserError(f"{file} holds a picture named {name!r}, which leads out of its folder")
                place = folder / name
                if not place.exists():
                    with atomic_path(place) as partial:
                        partial.write_bytes(content)
                    new += 1
                elif place.read_bytes() != content:
                    if name in seen:
                        raise UserError(f"{file} holds two pictures named {name}: say by --image-column NAME which "
                                        "column holds a name of its own for each")  # fmt: skip
                    raise UserError(f"{place} is another picture than the one inside {file}: name another --images "
                                    "folder for the pictures inside")  # fmt: skip
                seen.add(name)
    return new


class _Table:
    """One file: its columns, and the column with the pictures inside, if there is one."""

    def __init__(self, file: Any, path: Path, wanted: Sequence[str], chosen: Mapping[str, str | None]):
        self.file, self.path, self.row = file, path, 0
        types = {field.name: field.type for field in file.schema_arrow}
        pictures = [name for name, kind in types.items() if _holds_pictures(name, str(kind))]
        self.picture, chosen = _picture_column(path, pictures, chosen)
        self.stored = self.picture is not None and "path:" in str(types[self.picture])
        header = [name for name in types if name not in pictures]
        columns = Columns(path, header, wanted, chosen)
        self.own_name = columns.missing[:1] == ["image_name"] and self.picture is not None
        if self.own_name:
            header = [*header, "image_name"]
            columns = Columns(path, header, wanted, chosen)
        if columns.missing:
            raise UserError(f"{path} has the columns {shown(', '.join(types))[:SHOWN]}, but needs {columns.needs}")
        self.header, self.columns = header, columns
        self.light = sorted({header[place] for places in columns.places.values() for place in places} & set(types))
        self.light += [f"{self.picture}.path"] if self.own_name and self.stored else []

    def read(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        for batch in self.file.iter_batches(batch_size=AT_A_TIME, columns=list(names)) if names else ():
            yield from batch.to_pylist()

    def values(self, row: Mapping[str, Any]) -> list[Any]:
        """Return the row's values in the order of the header."""
        values = [row.get(name) for name in self.header]
        if self.own_name:
            stored = row[self.picture].get("path") if self.stored and isinstance(row.get(self.picture), dict) else None
            values[-1] = Path(stored).name if stored else f"{self.path.stem}-{self.row:06d}"
        self.row += 1
        return values


def _picture_column(
    path: Path, found: Sequence[str], chosen: Mapping[str, str | None]
) -> tuple[str | None, Mapping[str, str | None]]:
    """Return the column of pictures, if one was found, and what else was chosen. Raises UserError if two were."""
    if chosen.get("image_name") in found:
        return chosen["image_name"], {**chosen, "image_name": None}
    if len(found) > 1:
        raise UserError(f"{path} has more than one column of pictures: {' and '.join(found)}; say which by "
                        "--image-column NAME")  # fmt: skip
    return next(iter(found), None), chosen


def _holds_pictures(name: str, kind: str) -> bool:
    """Return whether a column of this type in words holds pictures: struct<bytes: binary, path: string>, or binary."""
    inside = kind.startswith("struct<") and "bytes: binary" in kind.replace("large_binary", "binary")
    return inside or (name.lower() in PICTURES and kind in ("binary", "large_binary"))


def _files(path: Path) -> list[tuple[Path, str | None]]:
    """Return the files, each with the split that its name, or a folder's, says: None unless two at least are said."""
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    said = {file: _said_split(file.relative_to(path)) for file in files}
    several = len(set(said.values())) > 1 and set(said.values()) <= set(SPLITS)
    return [(file, said[file] if several else None) for file in files]


def _said_split(file: Path) -> str:
    """Return the first word of the file's name that is a split, or of a folder's around it; "" if there is none."""
    words = [file.name.replace(".", "-").split("-")[0], *reversed(file.parts[:-1])]
    return next((each for word in words if (each := word.lower().removeprefix("partial-")) in SPLITS), "")


@contextmanager
def _arrow(path: Path) -> Iterator[Any]:
    """Yield pyarrow.parquet; what it raises on a broken file becomes a UserError."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{path} is Parquet, which needs pyarrow: pip install pyarrow") from None
    if not path.is_dir() and not path.is_file():
        raise UserError(f"{path} is no file; give the path of a Parquet file, or of a folder of them")
    try:
        yield parquet
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({' '.join(str(error).split())[:SHOWN]}); download it "
                        "again") from error  # fmt: skip
