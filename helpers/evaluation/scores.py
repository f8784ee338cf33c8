"""Caption metrics as COCO's evaluation computes them (pycocoevalcap), each with a 95 % interval over images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from .bootstrap import Score
from .coco import bleu, cider, meteor_score, rouge_l
from .ptb_tokenizer import INSTALL, tokenize, why_no_java

COCO = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider")
INTERVAL = "_95_interval"  # ends the name of a score's interval in metrics.json


@dataclass(frozen=True)
class Scores:
    """What was measured of captions, one an image.

    measured: by name, with intervals. counts: without. not_measured: {name: reason}. tokenizer: which one, in words.
    notes: what else a reader must know.
    """

    measured: dict[str, Score]
    counts: dict[str, float]
    not_measured: dict[str, str]
    tokenizer: str
    notes: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For metrics.json: each score by name, its interval beside it."""
        lines: dict[str, Any] = {"tokenizer": self.tokenizer}
        for name, score in self.measured.items():
            lines |= {name: score.value, name + INTERVAL: list(score.interval)}
        return {**lines, **self.counts, **self.notes, "not_measured": self.not_measured}

    def by_image(self) -> pd.DataFrame:
        """A row an image, a column a score."""
        return pd.DataFrame({name: score.per_image for name, score in self.measured.items()})

    def minus(self, other: "Scores") -> dict[str, Any]:
        """What both measured, this less the other: difference, 95 % interval of the paired bootstrap, and a verdict."""
        return {name: score.minus(other.measured[name]) for name, score in self.measured.items()
                if name in other.measured}  # fmt: skip


def as_lines(metrics: dict[str, Any]) -> list[str]:
    """What metrics.json holds as lines to print: a score with its interval, a list by its length and its first."""
    lines = []
    for name, value in metrics.items():
        if name in ("not_measured", "pictures_not_read"):
            lines += [f"{what:<28}{name.replace('_', ' ')}: {reason}" for what, reason in value.items()]
        elif isinstance(value, dict):
            lines += [f"{name:<28}{value['captions']}", *_differences(value)]
        elif isinstance(value, list) and not name.endswith(INTERVAL):
            lines.append(f"{name:<28}{len(value)}{f', first {value[0]}' if value else ''}")
        elif name + INTERVAL in metrics:
            low, high = metrics[name + INTERVAL]
            lines.append(f"{name:<28}{value:.4f} [{low:.4f}, {high:.4f}]")
        elif not isinstance(value, list):
            said = f"{value:.4f}" if isinstance(value, float) else "not known" if value is None else value
            lines.append(f"{name:<28}{said}")
    return lines


def _differences(against: dict[str, Any]) -> list[str]:
    lines = [f"{'  in one file only':<28}{len(against['in_one_file_only'])}"]
    for name, found in against.items():
        if isinstance(found, dict):
            low, high = found["95_interval"]
            lines.append(f"{'  ' + name:<28}{found['difference']:+.4f} [{low:+.4f}, {high:+.4f}] {found['verdict']}")
    return lines


def measure(
    captions: Sequence[str], references: Sequence[Sequence[str]], training: Iterable[str] = (), meteor: bool = True
) -> Scores:
    """Score each caption against the references of its image: raw text, one caption and at least one reference each.

    training: the captions that were trained on, to see which are copied. meteor: False saves Java's half a minute. What
    cannot be measured is left out, with its reason: all of COCO's without pycocoevalcap, METEOR without Java.
    """
    training, ends = list(training), np.cumsum([len(captions), *map(len, references)])
    flat = [text for known in references for text in known]
    texts, tokenizer = tokenize([*captions, *flat, *training])
    captions, training = texts[: ends[0]], texts[ends[-1] :]
    references = [texts[start:end] for start, end in pairwise(ends)]

    measured, not_measured = {}, {}
    if find_spec("pycocoevalcap") is None:
        not_measured = dict.fromkeys(COCO, INSTALL)
    else:
        measured = bleu(captions, references)
        reason = why_no_java() if meteor else "left out, because its Java takes half a minute; --meteor measures it"
        if reason:
            not_measured["meteor"] = reason
        else:
            measured["meteor"] = meteor_score(captions, references)
        measured |= {"rouge_l": rouge_l(captions, references), "cider": cider(captions, references)}
    measured["words"] = words(captions)
    if training:
        measured["copied"] = copied(captions, training)
    else:
        not_measured["copied"] = "no training captions among the references"
    return Scores(measured, variety(captions), not_measured, tokenizer)


def variety(captions: Sequence[str]) -> dict[str, float]:
    """Of tokenised captions: how many differ, how many words there are in all, and distinct-1 and distinct-2.

    distinct-n is the number of different n-grams over the number of all (Li et al. 2016). It falls with the number of
    captions, so compare equal numbers. These have no interval: a resample with repeats holds fewer different things
    than the captions themselves.
    """
    words = [caption.split() for caption in captions]
    counts: dict[str, float] = {
        "distinct_captions": len(set(captions)),
        "vocabulary": len({w for c in words for w in c}),
    }
    for n in (1, 2):
        grams = [tuple(caption[i : i + n]) for caption in words for i in range(len(caption) - n + 1)]
        counts[f"distinct_{n}"] = len(set(grams)) / len(grams) if grams else 0.0
    return counts


def words(captions: Sequence[str]) -> Score:
    """The mean number of words of tokenised captions."""
    return Score.mean(np.array([len(caption.split()) for caption in captions], dtype=float))


def copied(captions: Sequence[str], training: Iterable[str]) -> Score:
    """The share of tokenised captions that are, word for word, one of the tokenised training captions."""
    known = set(training)
    return Score.mean(np.array([caption in known for caption in captions], dtype=float))
