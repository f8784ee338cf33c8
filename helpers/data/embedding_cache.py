"""The embedding cache: each picture is encoded by CLIP once, into a folder that stays whole if its maker is killed.

fingerprint.json          the CLIP, preprocessing, pooling and dtype that made the rows
shard-00000.safetensors   float16 rows [n, D] or [n, S, D] with their image names and files, the pictures left out, and
                          the fingerprint's hash
                          (shard-p2of4-00000.safetensors if the second of four processes or machines made it)
index.csv, left_out.csv   the place of each image's row; the pictures without a row and the reason; for pandas
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..encoders.vision import POOLING, ImageEncoder
from ..errors import UserError
from ..runtime.files import read_json, read_text, write_text
from .shards import PictureFile, Shard

FINGERPRINT = "fingerprint.json"
FINGERPRINT_TYPES = {
    "name": str, "weights_sha256": str, "preprocessing": dict, "pooling": str, "dtype": str, "width": int,
}  # fmt: skip
SHARDS = "shard-*.safetensors"
TYPICAL = 500  # images whose patches are read for their mean and spread


class ForeignShardError(UserError):
    """A shard of another encoder than the cache's, which must not be re-created in silence: it may be the only one."""


class EmbeddingCache:
    """The rows of a cache folder by image name.

    folder: its place on disk. fingerprint: that of the CLIP that made it. image_names: in the order of the rows.
    encoder: the hash of that fingerprint, as the shards have it. width: D. shape: of a row, (D,) or (S, D) for patches.
    left_out: the pictures without a row, DataFrame[image_name, reason].
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any], shards: list[Shard]) -> None:
        self.folder, self.fingerprint, self._shards = folder, fingerprint, shards
        self.width: int = fingerprint["width"]
        self.shape = (fingerprint["tokens"], self.width) if "tokens" in fingerprint else (self.width,)
        self._places = {
            name: (number, row) for number, shard in enumerate(shards) for row, name in enumerate(shard.image_names)
        }
        self.image_names = list(self._places)
        self.encoder = encoder_sha256(fingerprint)
        if foreign := next((shard for shard in shards if shard.encoder not in (None, self.encoder)), None):
            raise ForeignShardError(f"{foreign.path} holds embeddings of another encoder than {folder / FINGERPRINT} "
                                    "says: move it to a folder of its own")  # fmt: skip
        if wrong := next((shard for shard in shards if shard.embeddings.shape[1:] != self.shape), None):
            raise UserError(f"{wrong.path} is broken (its rows are {list(wrong.embeddings.shape[1:])}, not "
                            f"{list(self.shape)}); delete it and embed the pictures again")  # fmt: skip
        reasons = {name: why for shard in shards for name, why in shard.left_out.items() if name not in self._places}
        self.left_out = pd.DataFrame(reasons.items(), columns=["image_name", "reason"])

    @classmethod
    def open(cls, folder: str | Path, clip: ImageEncoder | None = None) -> "EmbeddingCache":
        """Open the cache in `folder`. Raises UserError if there is none, if it is broken, or if `clip` is another."""
        folder = Path(folder)
        fingerprint = read_fingerprint(folder, clip)
        return cls(folder, fingerprint, [Shard.read(path) for path in sorted(folder.glob(SHARDS))])

    def __len__(self) -> int:
        return len(self.image_names)

    def rows(self, image_names: Iterable[str]) -> torch.Tensor:
        """Read the embeddings of these images, float32 [N, D] or [N, S, D].

        Raises UserError if one has none, or if its shard is broken.
        """
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
            rows[positions] = self._shards[number].select(places[positions, 1])
        return rows

    def of(self, image_names: Iterable[str]) -> "ImageEmbeddings":
        """Return the embeddings of these images to be indexed by their place. Raises UserError if one has none."""
        return ImageEmbeddings(self, list(image_names))

    def index(self) -> pd.DataFrame:
        """Return the place of each row: DataFrame[image_name, shard, row]."""
        places = [(name, self._shards[number].path.name, row) for name, (number, row) in self._places.items()]
        return pd.DataFrame(places, columns=["image_name", "shard", "row"])

    def file_of(self, image_name: str) -> PictureFile | None:
        """Return what identifies the file that the image's row was computed from; None if that was not recorded."""
        number, row = self._places[image_name]
        return self._shards[number].files[row]

    @property
    def covered(self) -> bool:
        """Whether a hash covers the names of every shard, which those of older versions lack."""
        return all(shard.covered for shard in self._shards)

    def tables_are_current(self) -> bool:
        """Tell whether index.csv and left_out.csv say what the shards hold."""
        try:
            return all(read_text(self.folder / name) == text for name, text in self._tables().items())
        except (OSError, ValueError):
            return False

    def save_tables(self) -> None:
        """Save index.csv and left_out.csv if they have changed: a finished cache may lie on a read-only disk."""
        if not self.tables_are_current():
            for name, text in self._tables().items():
                write_text(self.folder / name, text)

    def _tables(self) -> dict[str, str]:
        tables = {"index.csv": self.index(), "left_out.csv": self.left_out}
        return {name: table.to_csv(index=False, lineterminator="\n") for name, table in tables.items()}

    def rewrite(self, *, forget: set[str], record: dict[str, PictureFile]) -> "EmbeddingCache":
        """Drop the rows of the images in `forget`, record the files of others, and return the cache as it is then.

        Each shard is replaced whole, and one that is then empty is removed. One process at a time may do this.
        """
        for old in self._shards:
            shard = old.without(forget).with_files(record)
            if not (shard.image_names or shard.left_out):
                old.path.unlink()
            elif shard.image_names != old.image_names or shard.files != old.files or not old.covered:
                shard.save(old.path)
        return EmbeddingCache.open(self.folder)

    def verify(self) -> None:
        """Read every row. Raises UserError on the first shard whose rows are not those that were written."""
        for shard in self._shards:
            shard.verify()


class ImageEmbeddings:
    """The embeddings of N images in a fixed order, [N, D] or [N, S, D], with one interface for both poolings.

    A slice, a list or an int64 tensor of places gives a float32 tensor. Pooled embeddings are held in memory; patches
    are read from disk each time, because those of Flickr30k by ViT-B/32 would fill 4.9 GB.
    """

    def __init__(self, cache: EmbeddingCache, image_names: list[str]) -> None:
        self.shape = (len(image_names), *cache.shape)
        self._cache, self._image_names = cache, image_names
        self._in_memory = cache.rows(image_names) if len(cache.shape) == 1 else None

    def __len__(self) -> int:
        return len(self._image_names)

    def __getitem__(self, places: slice | list[int] | torch.Tensor) -> torch.Tensor:
        if self._in_memory is not None:
            return self._in_memory[places]
        return self._cache.rows(self._image_names[place] for place in torch.arange(len(self))[places])

    def typical(self) -> torch.Tensor:
        """Return embeddings to take mean and spread from: all pooled ones, or the patches of some images [n, S, D]."""
        return self[:] if self._in_memory is not None else self[:: -(-len(self) // TYPICAL)]


def read_fingerprint(folder: Path, clip: ImageEncoder | None) -> dict[str, Any]:
    """Read a cache's fingerprint. Raises UserError if it is not that of `clip`; only the name may differ."""
    try:
        found = read_json(folder / FINGERPRINT)
        kinds = {name: type(found[name]) for name in FINGERPRINT_TYPES}
        if kinds != FINGERPRINT_TYPES or found["width"] < 1 or type(found.get("tokens", 1)) is not int:
            raise ValueError("values of other types")
    except FileNotFoundError:
        raise UserError(f"{folder} holds no embeddings; make them with `clipxgpt embed --out {folder}`") from None
    except (OSError, ValueError, LookupError, TypeError):
        raise UserError(f"{folder / FINGERPRINT} is broken; delete {folder} and embed the pictures again") from None
    wanted = clip.fingerprint() if clip else found
    if others := differences(found, wanted):
        part = "CLIP" if found["pooling"] == wanted["pooling"] else "pooling"
        raise UserError(f"{folder} holds embeddings of {_in_words(found)}, but asked for is {_in_words(wanted)}; "
                        f"they differ in {', '.join(others)}; give the cache another folder, or use the {part} that "
                        "made it")  # fmt: skip
    return found


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return the names of what differs between two fingerprints; the encoder's name does not count."""
    return [name for name in {**wanted, **found} if name != "name" and found.get(name) != wanted.get(name)]


def encoder_sha256(fingerprint: dict[str, Any]) -> str:
    """Return the hash of what the embeddings depend on: of the fingerprint without the encoder's name."""
    return hashlib.sha256(json.dumps({**fingerprint, "name": None}, sort_keys=True).encode()).hexdigest()


def _in_words(fingerprint: dict[str, Any]) -> str:
    settings = hashlib.sha256(json.dumps(fingerprint["preprocessing"], sort_keys=True).encode()).hexdigest()
    weights, dtype, pooling = (fingerprint[key] for key in ("weights_sha256", "dtype", "pooling"))
    pooling = {text: name for name, text in POOLING.items()}.get(pooling, pooling)
    return f"{fingerprint['name']} (weights {weights[:8]}, preprocessing {settings[:8]}, {dtype}, {pooling})"
