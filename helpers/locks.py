"""One process at a time: for what two terminals, or the processes of torchrun, might do to one folder at once."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import UserError


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
