"""One file of the embedding cache: rows with their image names, and the pictures left out.

Several processes or machines may each make a part of a cache. Their shards have different names, so parts that were
made in different folders are simply copied into one.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import UserError
from ..runtime.files import atomic_path


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


@dataclass(frozen=True)
class Shard:
    """The rows of one file of the cache, float16 [n, D] or [n, S, D], memory-mapped if they were read from it."""

    embeddings: torch.Tensor
    image_names: list[str]
    left_out: dict[str, str]  # {image_name: reason}
    sha256: str  # of the rows
    path: Path | None = None

    @classmethod
    def read(cls, path: Path) -> "Shard":
        """Open the file at `path`. Raises UserError if it is broken."""
        try:
            with safe_open(path, "pt") as file:
                return cls(file.get_tensor("embeddings"), **json.loads(file.metadata()["shard"]), path=path)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is broken ({error}); build the cache again, which re-creates this shard"
            ) from error

    def save(self, path: Path) -> None:
        """Save the shard to `path` atomically."""
        record = {"image_names": self.image_names, "left_out": self.left_out, "sha256": self.sha256}
        with atomic_path(path) as partial:
            partial.write_bytes(save({"embeddings": self.embeddings}, {"shard": json.dumps(record)}))

    def verify(self) -> None:
        """Read all rows. Raises UserError if they are not those that were saved."""
        if rows_sha256(self.embeddings) != self.sha256:
            raise UserError(
                f"{self.path} is broken (its rows have changed); build the cache again, which re-creates it"
            )


def rows_sha256(embeddings: torch.Tensor) -> str:
    return hashlib.sha256(embeddings.numpy()).hexdigest()
