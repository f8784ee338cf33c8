"""Text files of captions as text: gzipped or not, UTF-8 with or without a mark, and a word on other encodings."""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError

NO_TEXT = re.compile("[\ud800-\udfff]")  # "surrogateescape" turns a byte that is not UTF-8 into one of these
PACKED = {
    b"PK\x03\x04": "zip archive, as Excel's .xlsx is too", b"BZh": "bzip2", b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard", b"7z\xbc\xaf": "7-Zip",
}  # fmt: skip
KINDS = "a CSV file or another kind of captions file that docs/formats.md shows"


@contextmanager
def open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """Open a text file in UTF-8, gzipped or not. A byte that is not UTF-8 becomes a surrogate, and line ends stay.

    Raises UserError if the file is missing, is no file (a folder, a pipe), is in UTF-16 or cannot be read to its end.
    """
    try:
        if path.exists() and not path.is_file():
            kind = "folder" if path.is_dir() else "pipe or device"
            raise UserError(f"{path} cannot be read as a table of captions: it is a {kind}; give {KINDS}")
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if packed else file
            begin = stream.read(64)
            stream.seek(0)
            if kind := next((kind for magic, kind in PACKED.items() if begin.startswith(magic)), None):
                raise UserError(f"{path} is packed ({kind}): unpack it, or save the table as CSV UTF-8")
            if begin[:2] in (b"\xff\xfe", b"\xfe\xff") or _every_other_is_null(begin):
                raise UserError(f"{path} is UTF-16 and no text in UTF-8: save it as UTF-8 (Excel: CSV UTF-8; iconv -f "
                                "UTF-16 -t UTF-8)")  # fmt: skip
            yield io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give the path of {KINDS}") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:  # ValueError: a path with a null character
        raise UserError(f"{path} cannot be read as a table ({error}); give a whole CSV file, gzipped or not") from None


def why_not_utf8(text: str) -> str | None:
    """Return what is said of a text that is not UTF-8, or None if it is."""
    if not NO_TEXT.search(text):
        return None
    try:
        text.encode("utf-8", "surrogateescape").decode("cp1252")
    except UnicodeError:
        return "not UTF-8"
    return "not UTF-8, but perhaps Windows' cp1252: save the file as UTF-8"


def _every_other_is_null(begin: bytes) -> bool:
    return len(begin) > 3 and (not any(begin[::2]) or not any(begin[1::2])) and any(begin)
