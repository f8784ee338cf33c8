"""Filling the embedding cache: every picture encoded once, resumable at any moment, alone or in parts."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from tqdm import tqdm

from ..config import Config
from ..encoders.vision import ImageEncoder
from ..errors import UserError
from ..models.writer import load_configs_encoder
from ..runtime.device import choose_accelerator
from ..runtime.files import only_one, sweep_partial, write_json, write_text
from .dataset import Data
from .embedding_cache import FINGERPRINT, SHARDS, EmbeddingCache, read_fingerprint
from .images import PictureError, open_picture, picture_path
from .shards import WHOLE, Part, Shard, rows_sha256

DRAWN_CACHES = {
    "pooled": Path("data/drawn-embeddings"), "patches": Path("data/drawn-patches"),
    "projected": Path("data/drawn-projected"), "stages": Path("data/drawn-stages"),
}  # fmt: skip


def open_cache(data: Data, config: Config, folder: str | Path | None = None, *, part: Part = WHOLE) -> EmbeddingCache:
    """Open the cache of all images of `data`, or of a part of them, by the config's CLIP; embed what is missing.

    folder: the cache's place; by default that of the drawn world, one for each pooling. Under torchrun the processes
    share the work, and all wait until it is done. A card is used only if there is something to embed.
    """
    folder = folder or DRAWN_CACHES[config.pooling]
    clip, names = load_configs_encoder(config), data.image_names()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        return build_cache(folder, data.images, names, clip=clip, part=part)
    # It gives each process a card of its own. The timeout is long, because the processes end at different times.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
    build_cache(folder, data.images, names, clip=clip, part=part.split(state.process_index, processes))
    state.wait_for_everyone()
    return EmbeddingCache.open(folder)


def build_cache(
    folder: str | Path, images: str | Path, image_names: Iterable[str], *, clip: ImageEncoder,
    batch_size: int = 32, shard_size: int = 512, part: Part = WHOLE,
) -> EmbeddingCache:  # fmt: skip
    """Open the cache in `folder`, with each of these pictures of the folder `images` embedded or listed as left out.

    Existing rows stay, missing ones are added in new shards, pictures left out before are tried again, and a broken
    shard is re-created. A killed process loses one shard (shard_size pictures) at most, and the next one goes on to
    the same bytes, because a batch never spans shards. A picture is known by its name alone: a changed file is not
    embedded again.
    part: the share of the pictures to embed; others may be made at the same time, in this folder or in another.
    A CLIP on the CPU moves to the best device once there is something to embed: until then no card is touched, and in
    a finished cache nothing is written.
    Raises UserError if the folder holds other things or another CLIP's embeddings, if no picture can be read, if the
    disk is full, and if another process makes this part.
    """
    folder, images, names = Path(folder), Path(images), list(dict.fromkeys(image_names))
    if cache := _finished(folder, clip, part.of(names)):  # several trainings may read it at a time
        return cache
    with only_one(folder, f"making part {part} of the embeddings", wait=False):
        try:
            cache = _Builder(folder, images, clip, part).build(names, batch_size, shard_size)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written ({error.strerror or error}); solve that and run it again to go on"
            ) from error
    if part == WHOLE and not set(names) & set(cache.image_names):  # a small part may well have no picture
        name, reason = next(cache.left_out.itertuples(index=False), ("the list", "is empty"))
        raise UserError(f"none of {len(names)} pictures can be embedded, such as {name}, which {reason}")
    return cache


@dataclass(frozen=True)
class _Builder:
    folder: Path
    images: Path
    clip: ImageEncoder
    part: Part

    def build(self, names: list[str], batch_size: int, shard_size: int) -> EmbeddingCache:
        """Embed what this part of the names still lacks, shard by shard, and write the tables."""
        cache, share = self._begin(), self.part.of(names)
        before = dict(cache.left_out.itertuples(index=False))
        known = {*cache.image_names, *before}
        pending, again = [name for name in share if name not in known], [name for name in share if name in before]
        if pending and not any(map(self._exists, names)):
            raise UserError(
                f"{self.images} has none of the {len(names)} pictures, such as {names[0]}; give their folder"
            )
        chunks = [some[i : i + shard_size] for some in (pending, again) for i in range(0, len(some), shard_size)]
        if chunks:
            free, done = self.part.free(self.folder), len(share) - len(pending) - len(again)
            with (
                tqdm(total=len(share), initial=done, desc="embedding", unit="picture") as bar,
                ThreadPoolExecutor(os.cpu_count()) as pool,
            ):
                for chunk in chunks:
                    shard = self._make_shard(chunk, batch_size, pool=pool, bar=bar)
                    if shard.image_names or any(before.get(name) != why for name, why in shard.left_out.items()):
                        shard.save(next(free))
        with only_one(self.folder, "writing the tables"):
            cache = EmbeddingCache.open(self.folder)
            _save_tables(cache)
        return cache

    def _begin(self) -> EmbeddingCache:
        """Return the cache as it stands, without broken shards and this part's half-written files; begin a new one."""
        folder = self.folder
        with only_one(folder, "writing the tables"):
            if not (folder / FINGERPRINT).exists():
                if folder.exists() and not (folder.is_dir() and all(path.name[0] == "." for path in folder.iterdir())):
                    raise UserError(f"{folder} holds other things than embeddings; give a new or empty folder")
                write_json(folder / FINGERPRINT, self.clip.fingerprint())
            for pattern in (".*.json.partial", ".*.csv.partial", self.part.partial()):
                sweep_partial(folder, pattern)
        fingerprint = read_fingerprint(folder, self.clip)
        shards = []
        for path in sorted(folder.glob(SHARDS)):
            try:
                shard = Shard.read(path)
                shard.verify()
            except UserError:
                tqdm.write(f"{path} is broken and is re-created")
                path.unlink(missing_ok=True)  # another part may have found it, too
            else:
                shards.append(shard)
        return EmbeddingCache(folder, fingerprint, shards)

    def _make_shard(self, names: list[str], batch_size: int, *, pool: ThreadPoolExecutor, bar: tqdm) -> Shard:
        """Embed the pictures of one shard. While CLIP encodes a batch, threads open the pictures of the next one."""
        clip, batches = self.clip, [names[i : i + batch_size] for i in range(0, len(names), batch_size)]
        rows, embedded, left_out = [torch.empty(0, *clip.shape, dtype=torch.float16)], [], {}
        ahead = pool.map(self._prepare, batches[0])
        for batch, following in zip(batches, [*batches[1:], []], strict=True):
            prepared, ahead = ahead, pool.map(self._prepare, following)
            pictures = dict(zip(batch, prepared, strict=True))
            left_out |= {name: why for name, why in pictures.items() if isinstance(why, str)}
            seen = {name: pixels for name, pixels in pictures.items() if not isinstance(pixels, str)}
            if seen:
                if clip.vision.device.type == "cpu":
                    clip.vision.to(choose_accelerator("fp32").device)
                rows.append(clip.see(torch.cat(list(seen.values()))).half())  # [batch, D] or [batch, S, D]
                if not rows[-1].isfinite().all():
                    raise UserError(f"{clip.name} gives embeddings that are not finite in float16; load it in float32")
                embedded += seen
            bar.update(len(batch))
        embeddings = torch.cat(rows)
        return Shard(embeddings, embedded, left_out, rows_sha256(embeddings))

    def _prepare(self, name: str) -> torch.Tensor | str:
        """Return the picture's pixel values [1, 3, H, W], or the reason why it is left out."""
        try:
            return self.clip.pixel_values([open_picture(picture_path(self.images, name))])
        except PictureError as error:
            return error.reason
        except UserError as error:
            return str(error)

    def _exists(self, name: str) -> bool:
        try:
            return picture_path(self.images, name).exists()
        except UserError:
            return False


def _finished(folder: Path, clip: ImageEncoder, names: list[str]) -> EmbeddingCache | None:
    """Return the cache in `folder` if each of these pictures has its row there and nothing is broken, else None.

    Raises UserError if it is another CLIP's.
    """
    if not (folder / FINGERPRINT).exists():
        return None
    read_fingerprint(folder, clip)
    try:
        cache = EmbeddingCache.open(folder)
        whole = set(names) <= set(cache.image_names) and all(
            (folder / name).read_text(encoding="utf-8") == text for name, text in _tables(cache).items()
        )
        if whole:
            cache.verify()  # last, because it reads every row
    except (UserError, OSError):  # the builder mends it
        return None
    return cache if whole else None


def _tables(cache: EmbeddingCache) -> dict[str, str]:
    tables = {"index.csv": cache.index(), "left_out.csv": cache.left_out}
    return {name: table.to_csv(index=False, lineterminator="\n") for name, table in tables.items()}


def _save_tables(cache: EmbeddingCache) -> None:
    """Save index.csv and left_out.csv if they have changed: a finished cache may lie on a read-only disk."""
    for name, text in _tables(cache).items():
        path = cache.folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
