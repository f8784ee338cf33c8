"""Words for people: which gender and age a caption names, and captions without words for gender."""

import csv
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).with_name("people.csv")  # its head says how it was made
PRONOUNS = {"he": "they", "she": "they", "him": "them", "his": "their", "her": "their", "hers": "theirs",
            "himself": "themselves", "herself": "themselves"}  # fmt: skip
VERBS = {"is": "are", "was": "were", "has": "have", "'s": "'re"} | {
    word: word
    for word in ("always", "sometimes", "perhaps", "this", "his")  # end in s, but are no verbs
}

WORD = re.compile(r"(?<![\w-])[A-Za-z]+(?![\w-])")  # "man-made" is no man
# Such a word behind "her", "male" or "female" shows that no noun follows: "kisses her on the cheek" is "kisses them",
# but "her cheek" is "their cheek"; "a male in a hat" is "a person", but "a male singer" is "a singer".
SMALL = ("a|an|the|and|or|but|while|as|who|that|is|are|was|has|have|in|on|at|to|of|off|up|down|into|onto|over|under|"
         "behind|beside|near|by|with|without|from|for|through|across|around|along|against")  # fmt: skip
HER = re.compile(rf"(?<![\w-])her(?= (?:{SMALL})\b|[,.;]|\W*$)", re.IGNORECASE)
VERB = r"\w+ing|\w+ed|looks|stands|sits|walks|runs|jumps|rides|plays|holds|wears"
SEX = re.compile(rf"(?<![\w-])(?:(an?) )?(?:fe)?male (?!(?:{SMALL}|{VERB})\b)(\w)", re.IGNORECASE)
SUBJECT = re.compile(r"(?<![\w-])(?:she|he)('s\b| \w+)?(?![\w-])", re.IGNORECASE)


class PersonWord(NamedTuple):
    """A word for people: its gender (woman, man or person), its age (adult, child or empty), and what it becomes."""

    gender: str
    age: str
    neutral: str  # empty if the word has no gender


@cache
def person_words() -> dict[str, PersonWord]:
    """Return the words of people.csv, each in the singular and the plural."""
    plurals = {row["plural"]: PersonWord(row["gender"], row["age"], row["neutral_plural"]) for row in _rows()}
    singulars = {row["word"]: PersonWord(row["gender"], row["age"], row["neutral"]) for row in _rows()}
    plurals.pop("", None)  # "someone" has none
    return plurals | singulars


def people_named(text: str) -> set[str]:
    """Return what a caption names: person if a word of the list is in it, and the words' woman, man, adult and child.

    "A couple of dogs" names nobody.
    """
    words = WORD.findall(text.lower().replace("couple of", ""))
    found = [person_words()[word] for word in words if word in person_words()]
    return {kind for word in found for kind in ("person", word.gender, word.age) if kind}


def neutral(text: str) -> str:
    """Return a caption without words for gender: "a woman in her hat" becomes "a person in their hat".

    Nouns become those of people.csv. He and she become they, with the verb behind them in the plural. "A man and a
    woman" become "two people". "Male" and "female" are left out before a noun. A caption without such words stays as it
    is. These are rules for words, not a grammar: the pronouns of animals change as well, and a verb that does not
    follow he or she at once stays.
    """
    changed = SEX.sub(lambda match: _as(match[0], _with_article(match[2]) if match[1] else match[2]), text)
    changed = SUBJECT.sub(lambda match: _as(match[0], "they" + _plural_verb(match[1] or "")), changed)
    changed = HER.sub(lambda match: _as(match[0], "them"), changed)
    changed = WORD.sub(lambda match: _neutral_word(match[0]), changed)
    return text if changed == text else _joined(changed)


@cache
def _rows() -> list[dict[str, str]]:
    with LIST.open(encoding="utf-8") as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _neutral_word(word: str) -> str:
    known = person_words().get(word.lower())
    return _as(word, PRONOUNS.get(word.lower()) or (known and known.neutral) or word)


def _plural_verb(verb: str) -> str:
    """Return "'s" or a verb with the space before it, in the plural; another word as it is."""
    space, verb = (" ", verb[1:]) if verb.startswith(" ") else ("", verb)
    if verb in VERBS:
        return space + VERBS[verb]
    verb = re.sub(r"(?<=\w\w)ies$", "y", verb)  # carries; not lies
    return space + re.sub(r"(?<=ch|sh|ss|zz|\wx|\wo)es$|(?<=[^s])s$", "", verb)


def _joined(text: str) -> str:
    """Return the text with two equal nouns joined: "a child and a child" as "two children", "people and people" once.

    Only nouns that a word with a gender may have become.
    """
    plurals = {row["neutral"]: row["neutral_plural"] for row in _rows() if row["neutral"]}
    one, many = ("|".join(map(re.escape, words)) for words in (plurals, plurals.values()))

    def two(match: re.Match[str]) -> str:
        return _as(match[0], f"two {match[1] or ''}{plurals[match[2].lower()]}")

    end = r"(?![\w'-])"
    text = re.sub(rf"\ba (\w+ )?({one}) and (?:a )?\2{end}", two, text, flags=re.IGNORECASE)
    text = re.sub(rf"\b({one}) and (?:the )?\1{end}", lambda match: _as(match[0], plurals[match[1].lower()]), text,
                  flags=re.IGNORECASE)  # fmt: skip
    return re.sub(rf"\b({many}) and (?:the )?\1{end}", r"\1", text, flags=re.IGNORECASE)


def _with_article(letter: str) -> str:
    return f"an {letter}" if letter.lower() in "aeiou" else f"a {letter}"


def _as(word: str, other: str) -> str:
    """Return the other word with a capital if the word begins with one."""
    return other[:1].upper() + other[1:] if word[:1].isupper() else other
