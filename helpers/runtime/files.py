"""Files and folders that are whole or not there: written beside their place, flushed to disk, then renamed."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UserError

PARTIAL = ".partial"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or make a folder at; on success it takes the place of `path`.

    Whoever the umask lets read and write a new file may do so here, whatever library wrote it.
    After an exception (a full disk, Ctrl-C) what was written is removed and what stood at `path` still stands. A
    process killed outright leaves only a `.NAME.partial`, which `sweep_partial` removes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{PARTIAL}")
    _remove(partial)
    try:
        yield partial
        for file in partial.rglob("*") if partial.is_dir() else [partial]:
            _open_to_others(file)
            _flush(file)
        if path.is_dir():  # a rename cannot replace a folder that holds files, so the old one steps aside first
            aside = path.with_name(f".{path.name}.old{PARTIAL}")
            _remove(aside)
            path.rename(aside)
            partial.rename(path)
            _remove(aside)
        else:
            partial.replace(path)
        _flush(path.parent)
    except BaseException:
        _remove(partial)
        raise


def sweep_partial(folder: str | Path, pattern: str = f".*{PARTIAL}") -> list[str]:
    """Remove what a killed process left half written in `folder`; return the names removed."""
    leftovers = sorted(Path(folder).glob(pattern))
    for leftover in leftovers:
        _remove(leftover)
    return [leftover.name for leftover in leftovers]


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _open_to_others(path: Path) -> None:
    """Give a file the permissions of an ordinary new one; safetensors writes files that only their owner may read."""
    umask = os.umask(0o077)  # the only way to read it, so it is set back at once
    os.umask(umask)
    mode = path.stat().st_mode
    if path.is_file() and (wanted := mode | (0o666 & ~umask)) != mode:
        path.chmod(wanted)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def only_one(folder: str | Path, work: str, wait: bool = True) -> Iterator[None]:
    """Keep other processes of this machine from doing `work` in `folder` meanwhile; a killed one frees it.

    wait: for the other to end; without it UserError is raised. The lock lies among the machine's temporary files, so
    the folder may be read-only and is left clean; it stays there, empty, for removing it would race with who waits.
    """
    place = hashlib.sha256(f"{_user()} {Path(folder).resolve()} {work}".encode()).hexdigest()[:20]
    lock = FileLock(Path(tempfile.gettempdir()) / f"clipxgpt-{place}.lock", timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"another process is {work} in {folder}: wait for it, or stop it") from None
    try:
        yield
    finally:
        lock.release()


def _user() -> int:
    """Whose locks: others may not write to these. Windows has no such number, and temporary files for each user."""
    return os.getuid() if hasattr(os, "getuid") else 0
