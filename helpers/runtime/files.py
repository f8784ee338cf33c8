"""Files and folders that are whole or absent, and locks that let one process at a time work on a folder."""

import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError

PARTIAL = ".partial"  # the ending of what is not whole yet
PATIENCE = 2.0  # seconds to wait for another process before saying so
POLL = 0.05  # seconds between two looks whether a lock is free


def home(path: str | Path) -> Path:
    """Return the path with a leading `~` replaced by the home folder; unchanged if there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or make a folder at; on success it takes the place of `path`.

    A device, or a pipe that somebody reads, is yielded itself, because nothing may take its place.

    It is flushed to disk before it is renamed, and gets the permissions that the umask gives a new file. After an
    exception (a full disk, Ctrl-C) what was written is removed and what stood at `path` still stands. A process that
    is killed leaves at most a `.NAME.partial`, which `sweep_partial` removes. A full disk is always an OSError with
    the file's name.
    """
    path = Path(path)
    if (end := _open_device(path)) is not None:
        try:
            yield path
        finally:
            os.close(end)
        return
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
    except BaseException as error:
        _remove(partial)
        # Rust's libraries, safetensors and tokenizers, report a full disk by errors of their own.
        if getattr(error, "errno", None) == errno.ENOSPC or "(os error 28)" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def is_device(path: Path) -> bool:
    """Return whether a device or a pipe lies at `path`, such as /dev/null or what a shell's `>(…)` stands for."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _open_device(path: Path) -> int | None:
    """Open a device, or a pipe that somebody reads; None if it is neither: a pipe that nobody reads is not waited for.

    While it is open, a reader sees no end of the pipe.
    """
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK) if is_device(path) else None
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def check_writable(folder: Path) -> None:
    """Raise OSError if no file can be made in `folder`, or in the nearest folder above it that is there."""
    place = next((each for each in (folder, *folder.parents) if each.exists()), None)
    tempfile.TemporaryFile(dir=place).close()


def sweep_partial(folder: str | Path, pattern: str = f".*{PARTIAL}") -> list[str]:
    """Remove what a killed process left half written in `folder`; return the removed names."""
    leftovers = sorted(Path(folder).glob(pattern))
    for leftover in leftovers:
        _remove(leftover)
    return [leftover.name for leftover in leftovers]


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8 atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Write an indented JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_text(path: str | Path) -> str:
    """Read a text file in UTF-8. Raises OSError, also for a folder or a pipe, and ValueError on other bytes."""
    path = Path(path)
    if path.exists() and not path.is_file():  # reading a pipe would wait forever
        raise OSError(f"{path} is no file")
    return path.read_text(encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file. Raises OSError as `read_text` does, and ValueError if it is no JSON, however deep it is."""
    return parse_json(read_text(path))


def read_object(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that holds an object. Raises OSError as `read_text` does, and ValueError on anything else."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    return content


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError on anything else, also on one that is nested too deep."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


@contextmanager
def only_one(folder: str | Path, work: str, *, wait: bool = True) -> Iterator[None]:
    """Keep other processes of this machine from doing `work` in `folder` meanwhile; a killed process frees it.

    wait: say so and wait for the other process to end, else raise UserError. The lock is an empty file among the
    machine's temporary files, so the folder may be read-only and stays clean. Whoever holds the lock removes the file,
    so none are left; only a killed process leaves its own, until the next one works on that folder.
    """
    name = hashlib.sha256(f"{_user()} {Path(folder).resolve()} {work}".encode()).hexdigest()[:20]
    path, asked = Path(tempfile.gettempdir()) / f"clipxgpt-{name}.lock", time.monotonic()
    said = False
    while (handle := _lock(path)) is None:
        if not wait:
            raise UserError(f"another process is {work} in {folder}: wait for it, or stop it")
        if not said and time.monotonic() - asked > PATIENCE:
            print(f"waiting for another process, which is {work} in {folder}", file=sys.stderr)
            said = True
        time.sleep(POLL)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _lock(path: Path) -> int | None:
    """Lock the file at `path`, a new one if there is none; return its handle, or None if another process holds it.

    The lock counts only if the locked file still lies at `path`: its last holder may have removed it between opening
    and locking.
    """
    import fcntl  # which Windows lacks

    while True:
        handle, locked = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = os.path.samestat(os.fstat(handle), path.stat())
        except BlockingIOError:
            return None
        except FileNotFoundError:
            continue
        finally:
            if not locked:
                os.close(handle)
        if locked:
            return handle


def _user() -> int:
    """Return the user's number, because others may not write to this user's locks. Windows has no such number."""
    return os.getuid() if hasattr(os, "getuid") else 0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _open_to_others(path: Path) -> None:
    """Give a file the permissions of an ordinary new one; safetensors writes files that only their owner may read."""
    umask = os.umask(0o077)  # reading it means setting it, so it is restored at once
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
