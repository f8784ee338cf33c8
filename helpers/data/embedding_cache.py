"""The embedding cache: each picture seen by CLIP once, in a folder that a kill leaves whole.

fingerprint.json          which CLIP, preprocessing, pooling and dtype made the rows
shard-00000.safetensors   float16 rows, [n, D] or [n, S, D], with their image names and the pictures left out
                          (shard-p2of4-00000.safetensors, where the second of four processes or machines made it)
index.csv, left_out.csv   where each image's row is, and what has none and why, for pandas
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..errors import UserError
from ..models.vision import POOLING, Clip
from .shards import Shard

FINGERPRINT = "fingerprint.json"
SHARDS = "shard-*.safetensors"


class EmbeddingCache:
    """The rows of a cache folder by image name.

    folder: where it is. fingerprint: of the CLIP that made it. image_names: in the order of the rows. width: D.
    shape: of a row, (D,) or (S, D) of patches. left_out: the pictures without a row, DataFrame[image_name, reason].
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any], shards: list[Shard]) -> None:
        self.folder, self.fingerprint, self._shards = folder, fingerprint, shards
        self.width: int = fingerprint["width"]
        self.shape = (fingerprint["tokens"], self.width) if "tokens" in fingerprint else (self.width,)
        self._places = {
            name: (number, row) for number, shard in enumerate(shards) for row, name in enumerate(shard.image_names)
        }
        self.image_names = list(self._places)
        reasons = {name: why for shard in shards for name, why in shard.left_out.items() if name not in self._places}
        self.left_out = pd.DataFrame(reasons.items(), columns=["image_name", "reason"])

    @classmethod
    def open(cls, folder: str | Path, clip: Clip | None = None) -> "EmbeddingCache":
        """The cache in `folder`. Raises UserError when there is none, when it is broken, or when `clip` is another."""
        folder = Path(folder)
        fingerprint = _read_fingerprint(folder, clip)
        return cls(folder, fingerprint, [Shard.read(path) for path in sorted(folder.glob(SHARDS))])

    def __len__(self) -> int:
        return len(self.image_names)

    def rows(self, image_names: Iterable[str]) -> torch.Tensor:
        """These images' embeddings in this order, float32 [N, D] or [N, S, D]. Raises UserError on one not here."""
        image_names = list(image_names)
        missing = [name for name in dict.fromkeys(image_names) if name not in self._places]
        if missing:
            some = ", ".join(missing[:3])
            raise UserError(
                f"{len(missing)} images have no embedding in {self.folder}, such as {some}; embed them first"
            )
        rows = torch.empty(len(image_names), *self.shape)
        places = torch.tensor([self._places[name] for name in image_names]).reshape(-1, 2)  # shard, row in it
        for number in places[:, 0].unique().tolist():
            positions = (places[:, 0] == number).nonzero().squeeze(1)
            rows[positions] = self._shards[number].embeddings[places[positions, 1]].float()
        return rows

    def array(self, image_names: Iterable[str]) -> "torch.Tensor | Rows":
        """The same as `rows`, but patches stay on disk until they are indexed."""
        return self.rows(image_names) if len(self.shape) == 1 else Rows(self, list(image_names))

    def index(self) -> pd.DataFrame:
        """Where each row is: DataFrame[image_name, shard, row]."""
        places = [(name, self._shards[number].path.name, row) for name, (number, row) in self._places.items()]
        return pd.DataFrame(places, columns=["image_name", "shard", "row"])

    def verify(self) -> None:
        """Read every row. Raises UserError on the first shard whose rows are not those that were written."""
        for shard in self._shards:
            shard.verify()


class Rows:
    """Patches of some images, float32 [N, S, D] but read when indexed: Flickr30k's by ViT-B/32 would fill 4.9 GB."""

    def __init__(self, cache: EmbeddingCache, image_names: list[str]) -> None:
        self._cache, self._image_names = cache, image_names
        self.shape = (len(image_names), *cache.shape)

    def __len__(self) -> int:
        return len(self._image_names)

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        return self._cache.rows(self._image_names[number] for number in torch.arange(len(self))[rows])


def _read_fingerprint(folder: Path, clip: Clip | None) -> dict[str, Any]:
    """Of the cache in `folder`. Raises UserError where it is not that of `clip`; the name alone may differ."""
    try:
        found = json.loads((folder / FINGERPRINT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no embeddings; make them with `clipxgpt embed --out {folder}`") from None
    except ValueError:
        raise UserError(f"{folder / FINGERPRINT} is broken; delete {folder} and embed the pictures again") from None
    wanted = clip.fingerprint() if clip else found
    if {**found, "name": None} != {**wanted, "name": None}:
        what = "CLIP" if found["pooling"] == wanted["pooling"] else "pooling"
        raise UserError(f"{folder} holds embeddings of {_in_words(found)}, but asked for is {_in_words(wanted)}; "
                        f"give the cache another folder, or use the {what} that made it")  # fmt: skip
    return found


def _in_words(fingerprint: dict[str, Any]) -> str:
    settings = hashlib.sha256(json.dumps(fingerprint["preprocessing"], sort_keys=True).encode()).hexdigest()
    weights, dtype, pooling = (fingerprint[key] for key in ("weights_sha256", "dtype", "pooling"))
    pooling = {text: name for name, text in POOLING.items()}.get(pooling, pooling)
    return f"{fingerprint['name']} (weights {weights[:8]}, preprocessing {settings[:8]}, {dtype}, {pooling})"
