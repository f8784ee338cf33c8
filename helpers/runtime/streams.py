"""Standard output and errors that cost a command no work: without a reader, closed, or in few letters."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.EIO)  # nobody reads the pipe any more; the terminal is closed


class Lasting:
    """A stream that leads nowhere once its reader has gone (`| head`, a closed terminal), so that the work goes on.

    unread: whether that has happened. Letters that its encoding lacks are written as \\xe9 or \\u2026.
    """

    def __init__(self, stream: TextIO):
        self._stream, self.unread = stream, False
        if getattr(stream, "errors", None) == "strict":
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._without_a_reader():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._without_a_reader():
            self._stream.flush()

    @contextmanager
    def _without_a_reader(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in GONE:
                raise
            self.unread = True
            _lead_nowhere(self._stream.fileno())


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Make standard output and errors last, and open those that are closed (`>&-`), as if they led to /dev/null."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            _lead_nowhere(descriptor)  # or the next file that is opened would get its number
            setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(Lasting, before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # such as a full disk, which the command has reported
                stream.flush()
        sys.stdout, sys.stderr = before


def _lead_nowhere(descriptor: int) -> None:
    """Let what is written to this file descriptor lead nowhere, also in processes that this one starts."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere == descriptor:
        os.set_inheritable(descriptor, True)
    else:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def leads_to(path: Path, descriptor: int) -> bool:
    """Return whether this file descriptor, such as standard output, leads to the file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:  # it is closed
        return False
