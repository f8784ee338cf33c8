"""TODO."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from tqdm import tqdm

from ..config import Config
from ..errors import UserError
from ..models.loading import load_clip
from ..models.vision import Clip
from ..runtime.device import choose_accelerator
from ..runtime.files import only_one, sweep_partial, write_json, write_text
from .dataset import Data
from .embedding_cache import FINGERPRINT, SHARDS, EmbeddingCache, _read_fingerprint
from .images import open_picture, picture_path
from .shards import WHOLE, Part, Shard, sha256_of

DRAWN_CACHES = {"pooled": Path("data/drawn-embeddings"), "patches": Path("data/drawn-patches")}


def open_cache(data: Data, config: Config, folder: str | Path | None = None, part: Part = WHOLE) -> EmbeddingCache:
    """The embeddings of all images of `data`, or of a part of them, by the config's CLIP; what is missing is added.

    folder: where they lie; without it the drawn world's, which has one for each pooling. Under torchrun the
    processes share the work out, and all wait until it is done. A card is used only where something has to be embedded.
    """
    folder = folder or DRAWN_CACHES[config.pooling]
    clip, names = load_clip(config.clip, pooling=config.pooling), data.image_names()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        return build_cache(folder, data.images, names, clip, part=part)
    # It gives each process a card of its own. The timeout is long, for the processes are not done at the same time.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
    build_cache(folder, data.images, names, clip, part=part.split(state.process_index, processes))
    state.wait_for_everyone()
    return EmbeddingCache.open(folder)


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
