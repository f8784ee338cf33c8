"""Things that a caption names, by a list of words in which several words can be one thing."""

import re
from functools import cache
from pathlib import Path

LIST = Path(__file__).with_name("objects.txt")  # its head says how it was made
LONGEST = 3  # words in an entry of the list, such as "hot dog" or "bow tie"


@cache
def object_words() -> dict[str, str]:
    """Return the name of the thing for each word or run of words that stands for it, in the singular and the plural."""
    named, plurals = {}, {}
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        name, _, others = line.partition(": ")
        for word in [name, *filter(None, others.split(", "))]:
            named[_spaced(word.rstrip("."))] = name.rstrip(".")
            if not word.endswith("."):
                plurals[_spaced(_plural(word))] = name.rstrip(".")
    return plurals | named  # "glasses" of its own entry goes before the plural of "glass"


def objects_named(text: str) -> set[str]:
    """Return the things that a caption names. A run of words goes before its parts: "a hot dog" is no dog."""
    words, known, found, place = _spaced(text.lower()).split(), object_words(), set(), 0
    while place < len(words):
        runs = ((length, " ".join(words[place : place + length])) for length in range(LONGEST, 0, -1))
        length, name = next(((length, known[run]) for length, run in runs if run in known), (1, None))
        found.add(name)
        place += length
    return found - {None, "nothing"}


def _plural(word: str) -> str:
    if re.search(r"(s|x|z|ch|sh)$", word):
        return f"{word}es"
    return re.sub(r"(?<=[^aeiou])y$", "ie", word) + "s"


def _spaced(text: str) -> str:
    """Return the words of a text with one space between them, without hyphens and other marks."""
    return " ".join(re.findall(r"[a-z]+", text))
