"""One file of the embedding cache: rows with their image names and files, and the pictures left out.

Several processes or machines may each make a part of a cache. Their shards have different names, so parts that were
made in different folders are simply copied into one, which refuses those of another encoder. A shard of before files
and encoders were recorded has None for them.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import UserError
from ..runtime.files import atomic_path, parse_json

DIGEST = 16  # bytes of a picture's SHA-256 that are kept


class Part(NamedTuple):
    """Part `index` of `count`, counted from 0: consecutive pictures, and the names of their shards."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"

    def split(self, index: int, count: int) -> "Part":
        """Return part `index` of `count` of this part."""
        return Part(self.index * count + index, self.count * count)

    def of(self, names: list[str]) -> list[str]:
        """Return the names that belong to this part."""
        return names[len(names) * self.index // self.count : len(names) * (self.index + 1) // self.count]

    @property
    def _stem(self) -> str:
        return "shard" if self.count == 1 else f"shard-p{self.index + 1}of{self.count}"

    def free(self, folder: Path) -> Iterator[Path]:
        """Yield the paths of the shards that this part may still save in `folder`."""
        paths = (folder / f"{self._stem}-{number:05}.safetensors" for number in count())
        return (path for path in paths if not path.exists())

    def partial(self) -> str:
        """Return the pattern of the files that this part may have left half written."""
        return f".{self._stem}-[0-9]*.partial"


WHOLE = Part()


class PictureFile(NamedTuple):
    """Identity of the file that a row was computed from: size, time of its last change, and its contents' hash.

    Size and time are compared first, because that takes no reading. The hash is the beginning of the SHA-256.
    """

    bytes: int
    modified_ns: int
    sha256: bytes

    @classmethod
    def of(cls, path: Path) -> "PictureFile":
        """Read the file at `path`. Raises OSError if that fails."""
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            return cls(stat.st_size, stat.st_mtime_ns, hashlib.file_digest(file, "sha256").digest()[:DIGEST])

    @staticmethod
    def pack(file: "PictureFile | None") -> tuple[int, int, list[int]]:
        """Return the numbers that a shard holds; a file that is not known has -1 bytes."""
        return (-1, 0, [0] * DIGEST) if file is None else (file.bytes, file.modified_ns, list(file.sha256))

    @classmethod
    def unpack(cls, size: int, modified_ns: int, digest: list[int]) -> "PictureFile | None":
        """Return what `pack` packed. Raises ValueError or TypeError on other numbers."""
        return None if size < 0 else cls(size, modified_ns, bytes(digest))


@dataclass(frozen=True)
class Shard:
    """The rows of one file of the cache, float16 [n, D] or [n, S, D], memory-mapped if they were read from it."""

    embeddings: torch.Tensor
    image_names: list[str]
    left_out: dict[str, str]  # {image_name: reason}
    sha256: str  # of the rows
    files: list[PictureFile | None]  # of the rows; None if it is not known
    encoder: str | None = None  # the hash of its fingerprint; None if it is not known
    path: Path | None = None
    stat: os.stat_result | None = None  # of the file when it was read
    covered: bool = True  # by a hash of all but the rows, which older shards lack

    @classmethod
    def of(
        cls, embeddings: torch.Tensor, image_names: list[str], left_out: dict[str, str],
        files: list[PictureFile | None], *, encoder: str | None = None,
    ) -> "Shard":  # fmt: skip
        """Return a new shard of these rows."""
        return cls(embeddings, image_names, left_out, rows_sha256(embeddings), files, encoder)

    @classmethod
    def read(cls, path: Path) -> "Shard":
        """Open the file at `path`. Raises UserError if it is broken: cut, of another form, or with other names."""
        try:
            if not path.is_file():
                raise ValueError("it is no file")
            stat = path.stat()
            with safe_open(path, "pt") as file:
                record, names = parse_json(file.metadata()["shard"]), file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
            shard = cls._parse(record, tensors)
            covered = "record_sha256" in tensors
            if covered and not torch.equal(tensors["record_sha256"], shard._record()["record_sha256"]):
                raise ValueError("its names are not those that were written")
        except (OSError, SafetensorError, LookupError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{path} is broken ({error}); build the cache again, which re-creates this shard"
            ) from error
        return replace(shard, path=path, stat=stat, covered=covered)

    @classmethod
    def _parse(cls, record: dict[str, Any], tensors: dict[str, torch.Tensor]) -> "Shard":
        """Return the shard of what its file holds. Raises ValueError, LookupError or TypeError on another form."""
        names, left_out, rows = record["image_names"], record["left_out"], tensors["embeddings"]
        encoder = record.get("encoder")
        if not isinstance(names, list) or not isinstance(left_out, dict):
            raise ValueError("its record has another form")
        if not all(isinstance(text, str) for text in (record["sha256"], encoder or "", *names, *left_out.values())):
            raise ValueError("its record has other values than text")
        if rows.dtype != torch.float16 or rows.ndim < 2:
            raise ValueError(f"its rows are {rows.ndim}-dimensional in {rows.dtype}")
        files = [None] * len(names)
        if "file_bytes" in tensors:
            columns = (tensors[f"file_{field}"].tolist() for field in PictureFile._fields)
            files = [PictureFile.unpack(*values) for values in zip(*columns, strict=True)]
        if not len(rows) == len(names) == len(set(names)) == len(files):
            raise ValueError(f"it has {len(rows)} rows, {len(set(names))} names and {len(files)} files")
        return cls(rows, names, left_out, record["sha256"], files, encoder)

    def save(self, path: Path) -> None:
        """Save the shard to `path` atomically. One text and sorted tensors, so that it always has the same bytes."""
        with atomic_path(path) as partial:
            partial.write_bytes(save({"embeddings": self.embeddings, **self._record()}, {"shard": self._text()}))

    def _text(self) -> str:
        record = {"image_names": self.image_names, "left_out": self.left_out, "sha256": self.sha256}
        return json.dumps(record | ({"encoder": self.encoder} if self.encoder else {}))

    def _record(self) -> dict[str, torch.Tensor]:
        """Return the columns of the files, and the hash of everything but the rows, whose own hash it covers."""
        packed = [PictureFile.pack(file) for file in self.files]
        columns = {
            "file_bytes": torch.tensor([values[0] for values in packed], dtype=torch.int64),
            "file_modified_ns": torch.tensor([values[1] for values in packed], dtype=torch.int64),
            "file_sha256": torch.tensor([values[2] for values in packed], dtype=torch.uint8).reshape(-1, DIGEST),
        }
        digest = hashlib.sha256(self._text().encode())
        for column in columns.values():
            digest.update(column.numpy())
        return columns | {"record_sha256": torch.tensor(list(digest.digest()), dtype=torch.uint8)}

    def verify(self) -> None:
        """Read all rows. Raises UserError if they are not those that were saved, or not finite."""
        wrong = "its rows have changed" if rows_sha256(self.embeddings) != self.sha256 else None
        if wrong is None and not self.embeddings.isfinite().all():
            wrong = "its rows are not finite"
        if wrong:
            raise UserError(f"{self.path} is broken ({wrong}); build the cache again, which re-creates it")

    def select(self, places: torch.Tensor) -> torch.Tensor:
        """Read the rows at these places, float32. Raises UserError if their file was cut, or if one is not finite."""
        now = self.path.stat() if self.stat and self.path.exists() else None
        same_file = now and now.st_ino == self.stat.st_ino  # by a rename, another one may lie there
        if same_file and now.st_size != self.stat.st_size:  # reading on could end the process
            raise UserError(f"{self.path} was cut while it was in use; build the cache again, which re-creates it")
        rows = self.embeddings[places].float()
        if not rows.isfinite().all():
            raise UserError(
                f"{self.path} is broken (its rows are not finite); build the cache again, which re-creates it"
            )
        return rows

    def without(self, image_names: set[str]) -> "Shard":
        """Return the shard without the rows of these images."""
        if not image_names & set(self.image_names):
            return self
        kept = [row for row, name in enumerate(self.image_names) if name not in image_names]
        names, files = ([column[row] for row in kept] for column in (self.image_names, self.files))
        rows = self.embeddings[kept].contiguous()
        return replace(Shard.of(rows, names, self.left_out, files, encoder=self.encoder), path=self.path)

    def with_files(self, files: dict[str, PictureFile]) -> "Shard":
        """Return the shard with these files recorded, by image name."""
        found = [files.get(name, before) for name, before in zip(self.image_names, self.files, strict=True)]
        return replace(self, files=found)


def rows_sha256(embeddings: torch.Tensor) -> str:
    return hashlib.sha256(embeddings.numpy()).hexdigest()
