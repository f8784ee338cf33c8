"""The embedding cache: each picture seen by CLIP once, in a folder that a kill leaves whole.

fingerprint.json          which CLIP, preprocessing, pooling and dtype made the rows
shard-00000.safetensors   float16 rows, [n, D] or [n, S, D], with their image names and the pictures left out
                          (shard-p2of4-00000.safetensors, where the second of four processes or machines made it)
index.csv, left_out.csv   where each image's row is, and what has none and why, for pandas
"""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from .accelerator import choose_accelerator
from .atomic import sweep_partial, write_json, write_text
from .errors import UserError
from .locks import only_one
from .pictures import open_picture, picture_path
from .pretrained import POOLING, Clip
from .shards import WHOLE, Part, Shard, sha256_of

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


def build_cache(
    folder: str | Path, images: str | Path, image_names: Iterable[str], clip: Clip,
    batch_size: int = 32, shard_size: int = 512, part: Part = WHOLE,
) -> EmbeddingCache:  # fmt: skip
    """The cache in `folder` with each of these pictures of the folder `images` in it, or among those left out.

    What is there stays; what is missing is added in new shards; what was left out before is tried again; a broken
    shard is made anew. Killed, it loses a shard (shard_size pictures) at most, and going on gives the same bytes, for
    a batch never spans shards. A picture is known by its name alone: a file that has changed is not looked at again.
    part: which share of the pictures to see to; the other parts may be made at the same time, in this folder or in one
    of their own. A CLIP on the CPU moves to the best device there is when there is something to embed: until then no
    card is touched, and on a finished cache nothing is written.
    Raises UserError on a folder of other things or of another CLIP, on pictures none of which can be read, on a full
    disk, and where another process makes this part.
    """
    folder, images, names = Path(folder), Path(images), list(dict.fromkeys(image_names))
    with only_one(folder, f"making part {part} of the embeddings", wait=False):
        return _build(folder, images, names, clip, batch_size, shard_size, part)


def _build(
    folder: Path, images: Path, names: list[str], clip: Clip, batch_size: int, shard_size: int, part: Part
) -> EmbeddingCache:
    try:
        cache, share = _claim(folder, clip, part), part.of(names)
        before = dict(cache.left_out.itertuples(index=False))
        known = {*cache.image_names, *before}
        pending, again = [name for name in share if name not in known], [name for name in share if name in before]
        if pending and not any(_exists(images, name) for name in names):
            raise UserError(f"{images} has none of the {len(names)} pictures, such as {names[0]}; give their folder")
        chunks = [some[i : i + shard_size] for some in (pending, again) for i in range(0, len(some), shard_size)]
        if chunks:
            free, done = part.free(folder), len(share) - len(pending) - len(again)
            with (
                tqdm(total=len(share), initial=done, desc="embedding", unit="picture") as bar,
                ThreadPoolExecutor(os.cpu_count()) as pool,
            ):
                for chunk in chunks:
                    shard = _embed(chunk, images, clip, batch_size, pool, bar)
                    if shard.image_names or any(before.get(name) != why for name, why in shard.left_out.items()):
                        shard.write(next(free))
        with only_one(folder, "writing the tables"):
            cache = EmbeddingCache.open(folder)
            _write_tables(cache)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}); mend that and run it again to go on"
        ) from error
    if part == WHOLE and not set(names) & set(cache.image_names):  # a small part may well have no picture
        name, reason = next(cache.left_out.itertuples(index=False), ("the list", "is empty"))
        raise UserError(f"none of {len(names)} pictures can be embedded, such as {name}, which {reason}")
    return cache


def _claim(folder: Path, clip: Clip, part: Part) -> EmbeddingCache:
    """The cache as it stands, less what is broken or was half written by this part; a new one where there is none."""
    with only_one(folder, "writing the tables"):
        if not (folder / FINGERPRINT).exists():
            if folder.exists() and not (folder.is_dir() and all(path.name[0] == "." for path in folder.iterdir())):
                raise UserError(f"{folder} holds other things than embeddings; give a new or empty folder")
            write_json(folder / FINGERPRINT, clip.fingerprint())
        for pattern in (".*.json.partial", ".*.csv.partial", part.partial()):
            sweep_partial(folder, pattern)
    fingerprint = _read_fingerprint(folder, clip)
    shards = []
    for path in sorted(folder.glob(SHARDS)):
        try:
            shard = Shard.read(path)
            shard.verify()
        except UserError:
            tqdm.write(f"{path} is broken and is made anew")
            path.unlink(missing_ok=True)  # another part may have found it too
        else:
            shards.append(shard)
    return EmbeddingCache(folder, fingerprint, shards)


def _embed(names: list[str], images: Path, clip: Clip, batch_size: int, pool: ThreadPoolExecutor, bar: tqdm) -> Shard:
    """The rows of one shard. While CLIP looks at a batch, threads open the pictures of the next one."""
    batches = [names[i : i + batch_size] for i in range(0, len(names), batch_size)]
    rows, shown, left_out = [torch.empty(0, *clip.shape, dtype=torch.float16)], [], {}
    ahead = pool.map(partial(_prepare, images, clip), batches[0])
    for batch, following in zip(batches, [*batches[1:], []], strict=True):
        prepared, ahead = ahead, pool.map(partial(_prepare, images, clip), following)
        pictures = dict(zip(batch, prepared, strict=True))
        left_out |= {name: why for name, why in pictures.items() if isinstance(why, str)}
        seen = {name: pixels for name, pixels in pictures.items() if not isinstance(pixels, str)}
        if seen:
            if clip.vision.device.type == "cpu":
                clip.vision.to(choose_accelerator("fp32").device)
            rows.append(clip.embed(torch.cat(list(seen.values()))).half())  # [batch, D] or [batch, S, D]
            if not rows[-1].isfinite().all():
                raise UserError(f"{clip.name} gives embeddings that are not finite in float16; load it in float32")
            shown += seen
        bar.update(len(batch))
    embeddings = torch.cat(rows)
    return Shard(embeddings, shown, left_out, sha256_of(embeddings))


def _prepare(images: Path, clip: Clip, name: str) -> torch.Tensor | str:
    """A picture as CLIP wants it, [1, 3, S, S], or the reason why it is left out."""
    try:
        path = picture_path(images, name)
        return clip.pixel_values([open_picture(path)])
    except UserError as error:
        return str(error).removeprefix(f"{images / name} ")


def _exists(images: Path, name: str) -> bool:
    try:
        return picture_path(images, name).exists()
    except UserError:
        return False


def _write_tables(cache: EmbeddingCache) -> None:
    """index.csv and left_out.csv, where they are not so already: a finished cache may lie on a read-only disk."""
    for name, table in (("index.csv", cache.index()), ("left_out.csv", cache.left_out)):
        path, text = cache.folder / name, table.to_csv(index=False, lineterminator="\n")
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


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
