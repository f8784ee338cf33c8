"""Filling the embedding cache: every picture encoded once, resumable at any moment, alone or in parts."""

import math
import os
import shutil
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
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
from ..runtime.files import only_one, sweep_partial, write_json
from ..runtime.texts import shown
from .changes import find_changes
from .dataset import Data
from .embedding_cache import FINGERPRINT, SHARDS, EmbeddingCache, ForeignShardError, read_fingerprint
from .images import PictureError, open_picture, picture_path
from .shards import WHOLE, Part, PictureFile, Shard

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
    the same bytes, because a batch never spans shards. A picture whose file has other contents than the one that was
    embedded is embedded again; rows of before files were recorded are taken for those of the files as they are now.
    part: the share of the pictures to embed; others may be made at the same time, in this folder or in another.
    A CLIP on the CPU moves to the best device once there is something to embed: until then no card is touched, and in
    a finished cache nothing is written.
    Raises UserError if the folder holds other things or another encoder's embeddings, if no picture can be read, if the
    disk is full, and if another process makes this part.
    """
    folder, images, names = Path(folder), Path(images), list(dict.fromkeys(image_names))
    builder = _Builder(folder, images, clip, part)
    if not (cache := builder.finished(names)):  # several trainings may read it at a time
        with only_one(folder, f"making part {part} of the embeddings", wait=False):
            try:
                cache = builder.build(names, batch_size, shard_size)
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

    def finished(self, names: list[str]) -> EmbeddingCache | None:
        """Return the cache if it lacks nothing of this part of the names and nothing is broken or changed, else None.

        Raises UserError if it is another CLIP's.
        """
        if not (self.folder / FINGERPRINT).exists():
            return None
        read_fingerprint(self.folder, self.clip)
        try:
            cache = EmbeddingCache.open(self.folder)
            rows, left_out, share = set(cache.image_names), dict(cache.left_out.values), self.part.of(names)
            if not cache.tables_are_current() or any(
                name not in rows and (name not in left_out or self._prepare(name) != left_out[name]) for name in share
            ):
                return None
            cache.verify()  # it reads every row
        except UserError:  # the builder mends it
            return None
        changes = find_changes(cache, self.images, share)
        if changes.changed:
            return None
        changes.report(self.images)
        if os.access(self.folder, os.W_OK) and not (cache.covered and not changes.files):
            with only_one(self.folder, "writing the tables"):
                cache = EmbeddingCache.open(self.folder).rewrite(forget=set(), record=changes.files)
        return cache

    def build(self, names: list[str], batch_size: int, shard_size: int) -> EmbeddingCache:
        """Embed what this part of the names still lacks, shard by shard, and write the tables."""
        share = self.part.of(names)
        cache = self._begin(share)
        before = dict(cache.left_out.itertuples(index=False))
        known = {*cache.image_names, *before}
        pending, again = [name for name in share if name not in known], [name for name in share if name in before]
        if pending and not any(map(self._exists, names)):
            raise UserError(
                f"{self.images} has none of the {len(names)} pictures, such as {names[0]}; give their folder"
            )
        chunks = [some[i : i + shard_size] for some in (pending, again) for i in range(0, len(some), shard_size)]
        if chunks:
            _check_room(self.folder, 2 * len(pending) * math.prod(self.clip.shape))  # float16
            free, done = self.part.free(self.folder), len(share) - len(pending) - len(again)
            with (
                tqdm(total=len(share), initial=done, desc="embedding", unit="picture") as bar,
                ThreadPoolExecutor(os.cpu_count()) as pool,
            ):
                for chunk in chunks:
                    shard = replace(self._make_shard(chunk, batch_size, pool=pool, bar=bar), encoder=cache.encoder)
                    if shard.image_names or any(before.get(name) != why for name, why in shard.left_out.items()):
                        shard.save(next(free))
        with only_one(self.folder, "writing the tables"):
            cache = EmbeddingCache.open(self.folder)
            cache.save_tables()
        return cache

    def _begin(self, share: list[str]) -> EmbeddingCache:
        """Return the cache as it stands, or a new one.

        Broken shards, this part's half-written files and the rows of its pictures that have changed are removed.
        """
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
                    EmbeddingCache(folder, fingerprint, [shard]).verify()
                except ForeignShardError:
                    raise
                except UserError:
                    tqdm.write(f"{shown(path)} is broken and is re-created", file=sys.stderr)
                    path.unlink(missing_ok=True)
                else:
                    shards.append(shard)
            cache = EmbeddingCache(folder, fingerprint, shards)
            changes = find_changes(cache, self.images, share)
            changes.report(self.images)
            if changes.changed or changes.files or not cache.covered:
                cache = cache.rewrite(forget=changes.changed, record=changes.files)
            return cache

    def _make_shard(self, names: list[str], batch_size: int, *, pool: ThreadPoolExecutor, bar: tqdm) -> Shard:
        """Embed the pictures of one shard. While CLIP encodes a batch, threads open the pictures of the next one."""
        clip, batches = self.clip, [names[i : i + batch_size] for i in range(0, len(names), batch_size)]
        rows, embedded, left_out = [torch.empty(0, *clip.shape, dtype=torch.float16)], {}, {}
        ahead = pool.map(self._prepare, batches[0])
        for batch, following in zip(batches, [*batches[1:], []], strict=True):
            prepared, ahead = ahead, pool.map(self._prepare, following)
            pictures = dict(zip(batch, prepared, strict=True))
            left_out |= {name: why for name, why in pictures.items() if isinstance(why, str)}
            seen = {name: each for name, each in pictures.items() if not isinstance(each, str)}
            if seen:
                if clip.vision.device.type == "cpu":
                    clip.vision.to(choose_accelerator("fp32").device)
                pixels = torch.cat([pixels for pixels, _ in seen.values()])
                rows.append(clip.see(pixels).half())  # [batch, D] or [batch, S, D]
                if not rows[-1].isfinite().all():
                    raise UserError(f"{clip.name} gives embeddings that are not finite in float16; load it in float32")
                embedded |= {name: file for name, (_, file) in seen.items()}
            bar.update(len(batch))
        return Shard.of(torch.cat(rows), list(embedded), left_out, list(embedded.values()))

    def _prepare(self, name: str) -> tuple[torch.Tensor, PictureFile] | str:
        """Return the picture's pixel values [1, 3, H, W] and its file, or the reason why it is left out."""
        try:
            path = picture_path(self.images, name)
            pixels = self.clip.pixel_values([open_picture(path)])
            return pixels, PictureFile.of(path)
        except OSError as error:
            return f"cannot be read ({error.strerror}); give a whole picture"
        except PictureError as error:
            return error.reason
        except UserError as error:
            return str(error)

    def _exists(self, name: str) -> bool:
        try:
            return picture_path(self.images, name).exists()
        except UserError:
            return False


def _check_room(folder: Path, needed: int) -> None:
    """Raise UserError if the disk of `folder` has less room than so many bytes."""
    if (free := shutil.disk_usage(folder).free) < needed:
        raise UserError(f"no space left for {needed / 1e9:.2g} GB of embeddings in {folder}, whose disk has "
                        f"{free / 1e9:.2g} GB: make room, or give the cache another folder")  # fmt: skip
