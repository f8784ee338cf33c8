"""Hashes that tell one training set from another, and the pictures that have changed since they were embedded."""

import hashlib
import os
import stat
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from tqdm import tqdm

from ..errors import UserError
from ..runtime.texts import shown
from .batches import CaptionBatches
from .embedding_cache import EmbeddingCache
from .images import picture_path
from .shards import PictureFile

PICTURES = "pictures_sha256"  # where a run and a trial record the hash of their pictures
DIGITS = 16  # hexadecimal digits of a file's SHA-256 that tell one picture from another


class Changes(NamedTuple):
    """The pictures of a cache whose files are not, or may not be, those that were embedded.

    changed: those with other contents. files: what is to be recorded for others. unrecorded, gone: how many had no file
    recorded, and how many have no file now; their rows stay.
    """

    changed: set[str]
    files: dict[str, PictureFile]
    unrecorded: int
    gone: int

    def report(self, images: Path) -> None:
        """Say on stderr what a user should know."""
        if self.changed:
            _say(f"{len(self.changed)} pictures in {images} have changed and are embedded again, such as "
                 f"{min(self.changed)}")  # fmt: skip
        if self.unrecorded:
            _say(f"{self.unrecorded} embeddings are of before files were recorded: they are taken for those of the "
                 f"pictures that are in {images} now")  # fmt: skip
        if self.gone:
            _say(f"{self.gone} pictures are not in {images} any more: their embeddings of before are used")


def find_changes(cache: EmbeddingCache, images: Path, names: list[str]) -> Changes:
    """Compare the files of these pictures, as far as they have rows, with those that were embedded.

    A file of the same size and time is taken for the same; only others are read. What cannot be recorded, because the
    cache is on a read-only disk, is not read either.
    """
    rows, read_again, changed, gone, unrecorded = set(cache.image_names), {}, set(), 0, 0
    may_write = os.access(cache.folder, os.W_OK)
    for name in (name for name in names if name in rows):
        before, (path, now) = cache.file_of(name), _find_file(images, name)
        if now is None:
            gone += 1
        elif before is None:
            unrecorded += 1
            if may_write:
                read_again[name] = path
        elif now.st_size != before.bytes:
            changed.add(name)
        elif now.st_mtime_ns != before.modified_ns:
            read_again[name] = path
    files = {}
    if read_again:
        with ThreadPoolExecutor() as pool:
            found = pool.map(_read_file, read_again.values())
            files = dict(zip(read_again, tqdm(found, "reading", len(read_again), unit="picture"), strict=True))
    for name, file in files.items():
        before = cache.file_of(name)
        if file is None or (before and file.sha256 != before.sha256):
            changed.add(name)
    return Changes(changed, {name: file for name, file in files.items() if name not in changed}, unrecorded, gone)


def _find_file(images: Path, name: str) -> tuple[Path | None, os.stat_result | None]:
    """Return where the picture's file is, and its size and time; None twice if there is no file."""
    try:
        path = images / name
        path = path if path.exists() else picture_path(images, name)  # whose search for other spellings takes longer
        now = path.stat()
        return (path, now) if stat.S_ISREG(now.st_mode) else (None, None)
    except (UserError, OSError, ValueError):
        return None, None


def _read_file(path: Path) -> PictureFile | None:
    try:
        return PictureFile.of(path)
    except OSError:
        return None


def _say(line: str) -> None:
    tqdm.write(shown(line), file=sys.stderr)


def captions_sha256(captions: pd.DataFrame) -> str:
    """Return the hash of the captions and the names of their images, in their order."""
    text = "\n".join(f"{row.image_name}\t{row.caption}" for row in captions.itertuples())
    return hashlib.sha256(text.encode()).hexdigest()


def pictures_sha256(cache: EmbeddingCache, names: Iterable[str]) -> str | None:
    """Return the hash of the files that these images' embeddings were computed from; None if some are not recorded.

    Images without an embedding do not count.
    """
    there = set(cache.image_names)
    files = {name: cache.file_of(name) for name in sorted(names) if name in there}
    if None in files.values():
        return None
    text = "\n".join(f"{name}\t{file.sha256}" for name, file in files.items())
    return hashlib.sha256(text.encode()).hexdigest()


def picture_hashes(cache: EmbeddingCache, names: Iterable[str]) -> dict[str, str]:
    """Return the first DIGITS of the hash of each image's file, as far as it was recorded when it was embedded."""
    there = set(cache.image_names)
    files = {name: cache.file_of(name) for name in names if name in there}
    return {name: file.sha256.hex()[:DIGITS] for name, file in files.items() if file is not None}


def differ(before: str | None, now: str | None) -> bool:
    """Tell whether two such hashes differ; one that is not known differs from none."""
    return None not in (before, now) and before != now


def data_identity(batches: CaptionBatches, cache: EmbeddingCache) -> dict[str, Any]:
    """Return what tells one training set from another: its size, and hashes of its captions, pictures and CLIP."""
    identity = {
        "captions": len(batches.captions),
        "images": len(batches.image_names),
        "sha256": captions_sha256(batches.captions),
        "clip_sha256": cache.fingerprint["weights_sha256"],
        PICTURES: pictures_sha256(cache, batches.image_names),
    }
    if batches.text:  # captions without an image
        ids = torch.cat(batches.text).numpy().tobytes()
        identity |= {"text_captions": len(batches.text), "text_sha256": hashlib.sha256(ids).hexdigest()}
    return identity
