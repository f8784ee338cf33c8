"""Files and folders that are whole or not there: written beside their place, flushed to disk, then renamed."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
