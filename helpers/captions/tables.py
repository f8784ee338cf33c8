"""Captions files that are tables: CSV, TSV, Kaggle's Flickr30k with its pipes, and Flickr8k's name#0<TAB>caption."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import UserError
from .columns import Columns, Row, needs
from .decoding import NO_TEXT, open_text
from .names import has_picture_ending

LONGEST_HEADER = 100_000  # characters
SHOWN = 200  # characters of a row that is too long
SEPARATORS = "|\t;,"
NAMED_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # Excel's first line
TOKEN = re.compile(r"([^\t]+)#\d+\t(.*)")  # Flickr8k.token.txt and Flickr30k's results_20130124.token
SWALLOWED_ROW = re.compile(r"[\r\n][^\r\n,;\t]+\.\w{3,4}[,;\t]")
FEW = "not as many fields as the header"
MANY = "more fields than the header: put quotes around a text that holds the separator"
OPEN_QUOTE = "an unclosed quote runs into the next row"
QUOTES = "quotes inside a quoted field: double them"


def table_rows(path: Path, wanted: Sequence[str], chosen: Mapping[str, str | None]) -> Iterator[Row]:
    """Yield the rows of a table; a row with several captions is yielded once for each.

    wanted, chosen: see Columns. Raises UserError on a file of another kind.
    """
    with open_text(path) as lines:
        header, separator = _read_header(lines)
        if "caption" in wanted and TOKEN.fullmatch(header.rstrip("\r\n")):
            yield from _token_rows([header], 0)
            yield from _token_rows(lines, 1)
            return
        if len(header) == LONGEST_HEADER:
            raise UserError(f"{path} begins with a line of {LONGEST_HEADER:,} characters or more, where a header with "
                            f"{needs(wanted)} is needed")  # fmt: skip
        columns = Columns(path, _header_names(header, separator), wanted, chosen)
        if columns.missing:
            raise UserError(_another_kind(path, header, columns.needs))
        last = columns.places.get("caption") == [len(columns.names) - 1]
        rows = _piped(lines, columns, last) if separator == "|" else _Separated(lines, separator, columns, last)
        for number, (fields, text, reason) in enumerate(rows):
            if fields is None:
                yield Row(number, None, text, reason)
            else:
                yield from columns.rows(number, fields, text)


def begins_like_table(path: Path) -> bool:
    """Return whether a text file begins with a header that has a caption column, or with a line of name#0<TAB>caption.

    A caption may begin with "Raw, ...", so a header without a column of pictures' names has but one word per column.
    Raises UserError if two columns may hold the captions.
    """
    with open_text(path) as lines:
        header, separator = _read_header(lines)
    names = _header_names(header, separator)
    columns = Columns(path, names, ("caption",), {})
    if columns.missing:
        return TOKEN.fullmatch(header.rstrip("\r\n")) is not None
    return not Columns(path, names, ("image_name",), {}).missing or all(len(name.split()) == 1 for name in names)


def _read_header(lines: io.TextIOWrapper) -> tuple[str, str]:
    """Return the first line that is not blank, behind Excel's `sep=;` if that is there, and the separator."""
    header = lines.readline(LONGEST_HEADER)
    while header.isspace():
        header = lines.readline(LONGEST_HEADER)
    if named := NAMED_SEPARATOR.fullmatch(header):
        return lines.readline(LONGEST_HEADER), named[1]
    return header, next((character for character in SEPARATORS if character in header), ",")


def _header_names(header: str, separator: str) -> list[str]:
    names = _parse(header.rstrip("\r\n"), separator) or header.split(separator)
    return _unwrapped(names, separator) or names


def _another_kind(path: Path, header: str, needed: str) -> str:
    if not header:
        return f"{path} is empty; it needs {needed}"
    if NO_TEXT.search(header) or min(header) < "\t":
        return f"{path} is no text in UTF-8; give a CSV file with {needed}"
    return f"{path} begins with {header.strip()[:60]!r}, where a header with {needed} is needed"


def _token_rows(lines: Iterator[str] | list[str], start: int) -> Iterator[Row]:
    for number, line in enumerate((line.rstrip("\r\n") for line in lines if line.strip()), start):
        found = TOKEN.fullmatch(line)
        fields = {"image_name": found[1].strip(), "caption": found[2].strip()} if found else None
        yield Row(number, fields, line, None if found else "no picture's name, #, number and tab before the caption")


def _piped(lines: Iterator[str], columns: Columns, last: bool) -> Iterator[tuple[list[str] | None, str, str | None]]:
    """Split Kaggle's layout: one row per line, and quotes mean nothing.

    last: the caption is the last column, so it may hold separators.
    """
    for line in lines:
        line = line.rstrip("\r\n")
        if line.strip():
            fields = [_unquote(field.strip()) for field in line.split("|", len(columns.names) - 1 if last else -1)]
            right = len(fields) == len(columns.names)
            yield (fields, line, None) if right else (None, line, FEW if len(fields) < len(columns.names) else MANY)


def _unquote(field: str) -> str:
    """Remove the quotes that a CSV writer put around a field, and no others."""
    inside = field[1:-1].replace('\\"', '""')
    quoted = len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inside.replace('""', "")
    return inside.replace('""', '"') if quoted else field


class _Separated:
    """The rows of a CSV as (fields, text, reason): a broken one costs itself alone, and common faults are mended.

    last: the caption is the last column, so it may hold separators without quotes.
    """

    def __init__(self, lines: Iterator[str], separator: str, columns: Columns, last: bool):
        self.lines, self.separator, self.last = lines, separator, last
        self.width, self.image = len(columns.names), columns.places.get("image_name", [0])[0]
        self.again: list[str] = []  # lines to be read again, the next one last
        self.taken: list[str] = []  # lines of the row that is being read

    def _next_line(self) -> Iterator[str]:
        while True:
            line = self.again.pop() if self.again else next(self.lines, None)
            if line is None:
                return
            self.taken.append(line)
            yield line

    def __iter__(self) -> Iterator[tuple[list[str] | None, str, str | None]]:
        while True:
            self.taken = []
            reader = csv.reader(self._next_line(), delimiter=self.separator, skipinitialspace=True, strict=True)
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error:
                fields = None
            yield from self._one(fields)

    def _one(self, fields: list[str] | None) -> Iterator[tuple[list[str] | None, str, str | None]]:
        if fields is not None and not any(fields):
            return
        text = "".join(self.taken).rstrip("\r\n")
        whole = fields is not None and len(fields) == self.width and '\\"' not in text
        if whole and not self._is_wrapped(fields) and not (len(self.taken) > 1 and SWALLOWED_ROW.search(text)):
            yield fields, text, None
            return
        joined = _parse(text.replace('\\"', '""'), self.separator) if '\\"' in text else None
        if joined and len(joined) == self.width and not SWALLOWED_ROW.search(text):
            yield joined, text, None
            return
        runs_on = len(self.taken) > 1
        self.again += reversed(self.taken[1:])  # whatever a broken quote has swallowed
        line = self.taken[0].rstrip("\r\n")
        mended = self._mend(line)
        if mended:
            yield mended, line, None
        elif len(line) > csv.field_size_limit():
            yield None, line[:SHOWN], f"a field of more than {csv.field_size_limit():,} characters"
        else:
            yield None, line, self._reason(line, runs_on)

    def _is_wrapped(self, fields: list[str]) -> bool:
        return not any(fields[1:]) and self.separator in fields[0]

    def _mend(self, line: str) -> list[str] | None:
        r"""Return the fields of one line, if it can be read in one way: \" for ", the whole line in quotes, or
        separators in the last column, which is the caption."""
        for text in (line.replace('\\"', '""'), line):
            fields = _parse(text, self.separator)
            for found in (fields, fields and _unwrapped(fields, self.separator)):
                if found and len(found) == self.width and not self._is_wrapped(found):
                    return found
                if found and found is not fields and self.last and len(found) > self.width:
                    return self._joined(fields[0])
        return self._joined(line)

    def _joined(self, line: str) -> list[str] | None:
        fields = line.split(self.separator, self.width - 1)
        if (
            len(line) > csv.field_size_limit()
            or not self.last
            or len(fields) < self.width
            or any('"' in field for field in fields[:-1])
        ):
            return None
        caption = fields[-1]
        begin = caption.split(self.separator)[0].strip()
        if caption.count('"') % 2 or (has_picture_ending(begin) and not has_picture_ending(fields[self.image].strip())):
            return None  # a quote that is not closed; a separator in the picture's name
        return [*fields[:-1], caption.replace(f"\\{self.separator}", self.separator).replace('\\"', '"')]

    def _reason(self, line: str, runs_on: bool) -> str:
        fields = _parse(line, self.separator)
        if fields is not None:
            return FEW if len(fields) < self.width else MANY
        return OPEN_QUOTE if runs_on or line.count('"') % 2 else QUOTES


def _unwrapped(fields: list[str], separator: str) -> list[str] | None:
    """Return the fields of a line that a spreadsheet took for one cell and put into quotes, or None."""
    return _parse(fields[0], separator) if separator in fields[0] and not any(fields[1:]) else None


def _parse(text: str, separator: str) -> list[str] | None:
    """Return the fields of one row, None if its quotes are wrong."""
    try:
        lines = io.StringIO(text, newline="")  # whose lines end at \n and \r alone
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None
