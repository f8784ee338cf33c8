"""Captions as words, split as in COCO's evaluation: by Stanford's Penn Treebank tokenizer, which needs Java."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

PTB = "Penn Treebank, as in COCO's evaluation"
FALLBACK = "a stand-in for Penn Treebank, so that scores differ a little from COCO's"
INSTALL = "pycocoevalcap is not installed: pip install pycocoevalcap"
JAR = "stanford-corenlp-3.4.1.jar"
JAVA_SECONDS = 60  # how long `java -version` may take

# What COCO's evaluation drops (pycocoevalcap/tokenizer/ptbtokenizer.py). Brackets stay in spite of it: they come in
# lower case, which this list does not hold.
DROPPED = {"''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
BRACKETS = str.maketrans({
    "(": " -lrb- ", ")": " -rrb- ", "[": " -lsb- ", "]": " -rsb- ", "{": " -lcb- ", "}": " -rcb- ", "\u2019": "'",
})  # fmt: skip

# The stand-in: "don't" is two words, as is "dog's"; hyphens, decimal points and points of initials stay in their word.
WORD = re.compile(
    r"-[lr][rsc]b-|\w+(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|(?:[^\W\d_]\.){2,}|\w+(?:[-.,/&]\w+)*|[^\w\s.?!,:;'\"`-]"
)


# Scripts that are written without spaces, and the letters of a word in them, on average and at most.
UNSPACED = {
    re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"): 3,  # Chinese and Japanese
    re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"): 10,  # Thai, Lao, Burmese, Khmer
}

FEW = 0.05  # of the texts; below it an average of scores still means something


class Tokenized(NamedTuple):
    """Texts as words, and the tokenizer that split them, in words."""

    texts: list[str]  # in lower case, punctuation dropped, a space between two words
    tokenizer: str


def ptb_words(texts: Sequence[str]) -> Tokenized:
    """Split each text into words. Without a working Java a stand-in does it, and `tokenizer` says so and why."""
    lines = [" ".join(text.split()).encode(errors="replace").decode() for text in texts]  # one line per text
    reason = why_no_java()
    if reason is None:
        try:
            return Tokenized(_by_java(lines), PTB)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            reason = f"Java's failed: {error}"
    return Tokenized([stand_in(line) for line in lines], f"{FALLBACK} ({reason})")


def stand_in(text: str) -> str:
    """Return the words of a text without Java: lower case, clitics apart, punctuation dropped.

    On 2,994 of 2,999 captions of Flickr30k it gives the words of Penn Treebank; the others have `&amp;` or `Univ.`.
    """
    return " ".join(WORD.findall(text.lower().translate(BRACKETS)))


def unspaced_note(texts: Iterable[str]) -> str | None:
    """Return what is to be said of texts that are written without spaces, as Chinese or Thai is; None if few are."""
    texts = list(texts)
    unspaced = sum(any(_longer(text, letter, most) for letter, most in UNSPACED.items()) for text in texts)
    if unspaced <= FEW * len(texts):
        return None
    return (f"{unspaced} of {len(texts)} texts: each counts as a word or a few, so the scores of words mean little; "
            "put spaces between the words first (jieba, MeCab, PyThaiNLP)")  # fmt: skip


def _longer(text: str, letter: re.Pattern[str], most: int) -> bool:
    """Return whether the words of a text that hold such letters hold more than `most` of them on average."""
    found = [len(letter.findall(word)) for word in text.split()]
    words = [count for count in found if count]
    return bool(words) and sum(words) > most * len(words)


def _by_java(lines: list[str]) -> list[str]:
    arguments = ("-cp", str(jar("tokenizer.ptbtokenizer", JAR)), "edu.stanford.nlp.process.PTBTokenizer")
    text = "".join(f"{line}\n" for line in lines)
    run = subprocess.run(
        command(*arguments, "-preserveLines", "-lowerCase"), input=text.encode(), capture_output=True, check=True
    )
    tokenized = run.stdout.decode().removesuffix("\n").split("\n") if lines else []
    if len(tokenized) != len(lines):
        raise ValueError(f"{len(lines)} lines became {len(tokenized)}")
    return [" ".join(word for word in line.split(" ") if word and word not in DROPPED) for line in tokenized]


def has_pycocoevalcap() -> bool:
    """Return whether the package with COCO's scores is installed."""
    return find_spec("pycocoevalcap") is not None


def why_no_java() -> str | None:
    """Return why pycocoevalcap's jars cannot run here, or None if they can."""
    if not has_pycocoevalcap():
        return INSTALL
    if shutil.which("java") is None:
        return "Java is not installed, or not on the PATH"
    try:  # macOS has a `java` that only says that there is none
        subprocess.run(["java", "-version"], check=True, capture_output=True, timeout=JAVA_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return f"java does not run ({error})"
    return None


def jar(part: str, name: str) -> Path:
    """Return the path of the jar `name` beside the module `part` of pycocoevalcap."""
    return Path(find_spec(f"pycocoevalcap.{part}").origin).with_name(name)


def command(*arguments: str) -> list[str]:
    """Return the command line that runs Java with text in UTF-8 both ways, whatever the locale says."""
    return ["java", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", *arguments]
