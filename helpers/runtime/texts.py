"""Names and captions of strangers, made harmless for a terminal and for a spreadsheet."""

import re
import unicodedata

ACTING = "=+-@\t\r"  # a spreadsheet takes a cell that begins with one of these for a formula


def shown(text: object) -> str:
    r"""Return the text for a terminal: control characters, marks of direction and broken characters as \x1b or \u202e.

    Line ends become such marks too, because a name with one could pass for a line of the program.
    """
    text = str(text)
    return text if text.isprintable() else "".join(map(_escaped, text))


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type's name if it has none."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def defused(text: str) -> str:
    """Return the text for a cell of a CSV: one that a spreadsheet would compute gets an apostrophe in front."""
    text = "".join(_escaped(each) if "\ud800" <= each <= "\udfff" else each for each in text)
    return f"'{text}" if text.lstrip("'")[:1] in ACTING and text.lstrip("'") else text


def undefused(text: str) -> str:
    """Return what `defused` was given."""
    return text[1:] if re.match(r"'+[=+\-@\t\r]", text) else text


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character != "\u200d":  # it joins emojis
        return character.encode("unicode_escape").decode()
    return character
