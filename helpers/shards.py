"""One file of the embedding cache: rows with their image names and the pictures left out, whole by itself."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .atomic import atomic_path
from .errors import UserError


@dataclass(frozen=True)
class Shard:
    """The rows of one file of the cache, float16 [n, D]; read from it they are memory-mapped."""

    embeddings: torch.Tensor
    image_names: list[str]
    left_out: dict[str, str]  # {image_name: reason}
    sha256: str  # of the rows
    path: Path | None = None

    @classmethod
    def read(cls, path: Path) -> "Shard":
        try:
            with safe_open(path, "pt") as file:
                return cls(file.get_tensor("embeddings"), **json.loads(file.metadata()["shard"]), path=path)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is broken ({error}); build the cache again, which makes this shard anew"
            ) from error

    def write(self, path: Path) -> None:
        record = {"image_names": self.image_names, "left_out": self.left_out, "sha256": self.sha256}
        with atomic_path(path) as partial:
            partial.write_bytes(save({"embeddings": self.embeddings}, {"shard": json.dumps(record)}))

    def verify(self) -> None:
        """Raises UserError when the rows are not those that were written."""
        if sha256_of(self.embeddings) != self.sha256:
            raise UserError(
                f"{self.path} is broken (its rows have changed); build the cache again, which makes it anew"
            )


def sha256_of(embeddings: torch.Tensor) -> str:
    return hashlib.sha256(embeddings.numpy()).hexdigest()
