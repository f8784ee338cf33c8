"""The scores of captions, each with a 95 % interval over images, and the same in words for people."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pandas as pd

from ..words.ptb_tokenizer import INSTALL, has_pycocoevalcap, ptb_words, unspaced_note, why_no_java
from .bootstrap import Score
from .coco import bleu, cider, meteor_score, rouge_l

COCO = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider")
INTERVAL = "_95_interval"  # ends the name of a score's interval in metrics.json


@dataclass(frozen=True)
class Scores:
    """The measurements of N captions, one per image.

    measured: scores by name, with intervals. counts: numbers by name, without. not_measured: {name: reason}.
    tokenizer: which one split the words. notes: what else a reader must know, by its key in metrics.json.
    """

    measured: dict[str, Score]
    counts: dict[str, float]
    not_measured: dict[str, str]
    tokenizer: str
    notes: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return what metrics.json holds of it: each score by name, its interval beside it."""
        values: dict[str, Any] = {"tokenizer": self.tokenizer}
        for name, score in self.measured.items():
            values |= {name: score.value, name + INTERVAL: list(score.interval)}
        return {**values, **self.counts, **self.notes, "not_measured": self.not_measured}

    def by_image(self) -> pd.DataFrame:
        """Return a table of N rows, one per image, with a column per score."""
        return pd.DataFrame({name: score.per_image for name, score in self.measured.items()})

    def minus(self, other: "Scores") -> dict[str, Any]:
        """Return `Score.minus` by name for each score that both have; both must be of the same images."""
        return {name: score.minus(other.measured[name]) for name, score in self.measured.items()
                if name in other.measured}  # fmt: skip


def measure(
    written: Sequence[str], references: Sequence[Sequence[str]], *, training: Iterable[str] = (), meteor: bool = True
) -> Scores:
    """Score each written caption against the references of its image; all are raw texts.

    written: N captions. references: N lists of at least one text. training: the captions that were trained on, to see
    which are copied. meteor: False leaves METEOR out, whose Java takes half a minute.
    What cannot be measured is left out, with its reason: all of COCO's scores without pycocoevalcap, METEOR without
    Java.
    """
    notes = {"unspaced": said} if (said := unspaced_note([*written, *chain.from_iterable(references)])) else {}
    training, ends = list(training), np.cumsum([len(written), *map(len, references)])
    texts, tokenizer = ptb_words([*written, *(text for known in references for text in known), *training])
    written, training = texts[: ends[0]], texts[ends[-1] :]
    references = [texts[start:end] for start, end in pairwise(ends)]

    measured, not_measured = {}, {}
    if has_pycocoevalcap():
        measured = bleu(written, references)
        reason = why_no_java() if meteor else "its Java takes half a minute; --meteor measures it"
        if reason:
            not_measured["meteor"] = reason
        else:
            measured["meteor"] = meteor_score(written, references)
        measured |= {"rouge_l": rouge_l(written, references), "cider": cider(written, references)}
    else:
        not_measured = dict.fromkeys(COCO, INSTALL)
    measured["words"] = Score.mean(np.array([len(caption.split()) for caption in written], dtype=float))
    if training:
        known = set(training)
        measured["copied"] = Score.mean(np.array([caption in known for caption in written], dtype=float))
    else:
        not_measured["copied"] = "no training captions among the references"
    return Scores(measured, variety(written), not_measured, tokenizer, notes)


def variety(written: Sequence[str]) -> dict[str, float]:
    """Return how many tokenised captions differ, how many words they use, and distinct-1 and distinct-2.

    distinct-n is the number of different n-grams over the number of all (Li et al. 2016), 0 to 1. It falls with the
    number of captions, so compare equal numbers. These have no interval: a resample repeats captions, so it holds
    fewer different ones than were written.
    """
    captions = [caption.split() for caption in written]
    counts: dict[str, float] = {
        "distinct_captions": len(set(written)),
        "vocabulary": len({word for caption in captions for word in caption}),
    }
    for n in (1, 2):
        grams = [tuple(caption[i : i + n]) for caption in captions for i in range(len(caption) - n + 1)]
        counts[f"distinct_{n}"] = len(set(grams)) / len(grams) if grams else 0.0
    return counts


LEFT_OUT = "Left out"
GROUPS = {  # by heading: keys of metrics.json and what people call them
    "Scored": {
        "captions": "captions", "images": "pictures", "trained_on": "of them trained on", "references": "references",
        "embeddings": "embeddings", "decoding": "decoding", "tokenizer": "words split by", "unspaced": "without spaces",
    },
    LEFT_OUT: {
        "images_without_embedding": "pictures with no embedding", "unusable_rows_of_references": "rows of references",
        "captions_without_references": "captions with no reference",
        "references_without_caption": "pictures with no caption", "pictures_not_read": "pictures that cannot be read",
    },
    "Words shared with the references": {
        "bleu_1": "BLEU-1", "bleu_2": "BLEU-2", "bleu_3": "BLEU-3", "bleu_4": "BLEU-4", "meteor": "METEOR",
        "rouge_l": "ROUGE-L", "cider": "CIDEr",
    },
    "Fit of picture and caption, as a CLIP judges it": {
        "clipscore": "CLIPScore", "refclipscore": "RefCLIPScore", "clip": "the judge",
        "clip_is_the_captioners": "is the captioner's own",
    },
    "Truth: the share of captions with every fact right": {
        "correct": "as written", "correct_shuffled": "written from another picture",
    },
    "Variety": {
        "distinct_captions": "distinct captions", "vocabulary": "vocabulary, in words", "words": "words per caption",
        "distinct_1": "distinct-1", "distinct_2": "distinct-2", "copied": "share copied from training",
    },
    "People, against what most references name": {
        "women_called_men": "a woman called a man", "men_called_women": "a man called a woman",
        "persons_given_a_gender": "a person given a gender", "children_called_adults": "a child called an adult",
        "adults_called_children": "an adult called a child", "people_invented": "a person invented",
        "people_missed": "a person missed",
    },
    "Objects that no reference names": {
        "objects_invented": "captions that invent one", "object_mentions_invented": "invented of all named",
        "objects_invented_by_references": "references, by the others",
    },
    "The references, in nats per token: the fewer, the better they are predicted": {
        "nats_per_token_true": "with its own picture", "nats_per_token_language_model": "the language model alone",
        "nats_per_token_mean": "with the mean embedding", "nats_per_token_shuffled": "with another picture",
    },
    "The picture, in nats": {
        "picture_tells_per_token": "what it tells, per token",
        "picture_tells_per_caption": "what it tells, per caption",
        "without_picture": "beyond what is known by",
        "wrong_picture_costs_per_token": "another costs, per token",
        "wrong_picture_costs_per_caption": "another costs, per caption",
        "mean_embedding_costs_per_token": "the mean costs, per token",
        "mean_embedding_costs_per_caption": "the mean costs, per caption",
    },
}  # fmt: skip
NAMES = {key: name for names in GROUPS.values() for key, name in names.items()}
VALUES = {"true": "the pictures' own", "True": "yes, with the same blind spots", "False": "no", "None": "not known"}
WIDTH = 30  # characters of a name and the space behind it


def summary_lines(metrics: Mapping[str, Any], *, examples: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Return the metrics of `evaluate` or `score_file` as lines for people.

    Scores stand in named groups, their 95 % intervals in brackets. examples: (image name, caption) pairs to show.
    The last lines are verdicts in words: how a second captions file compares, and whether the picture helps.
    """
    lines = []
    for heading, names in GROUPS.items():
        if group := _group(metrics, names, only_some=heading == LEFT_OUT):
            lines += [heading, *group]
    if examples:
        lines += ["Examples", *(f"  {image_name}: {caption}" for image_name, caption in examples)]
    if "against" in metrics:
        lines += _comparison(metrics["captions"], metrics["against"])
    if "without_picture" in metrics:
        lines.append(_picture_verdict(metrics))
    return lines


def training_lines(trainings: Mapping[str, Any]) -> list[str]:
    """Return what `over_trainings` found as lines for people: mean, spread over trainings, the first over pictures."""
    lines = [f"Over {len(trainings['captioners'])} trainings: the mean and its 95 % interval over trainings; the first "
             "and its 95 % interval over pictures"]  # fmt: skip
    for key, name in NAMES.items():
        if found := trainings["scores"].get(key):
            first = f"{found['of_each'][0]:.3f}"
            if "first_over_pictures" in found:
                first += f" {_between(found['first_over_pictures'])}"
            lines.append(f"  {name:<{WIDTH}}{found['mean']:.3f} {_between(found['over_trainings'])}; {first}")
    return lines


def _group(metrics: Mapping[str, Any], names: Mapping[str, str], *, only_some: bool) -> list[str]:
    """Return a line per value that is there. only_some: leave out what is 0 or empty."""
    lines: list[str] = []
    reasons: dict[str, list[str]] = {}  # why something was not measured, and what
    for key, name in names.items():
        if key in metrics["not_measured"]:
            reasons.setdefault(metrics["not_measured"][key], []).append(name)
        elif key in metrics and (metrics[key] or not only_some):
            between = f" {_between(metrics[key + INTERVAL])}" if key + INTERVAL in metrics else ""
            lines.append(f"  {name:<{WIDTH}}{_in_words(metrics[key])}{between}")
    return lines + [f"  {', '.join(unmeasured)} not measured: {reason}" for reason, unmeasured in reasons.items()]


def _in_words(value: Any) -> str:
    if isinstance(value, dict):  # pictures, each with the reason
        name, reason = next(iter(value.items()))
        return f"{len(value)}, such as {name}: {reason}"
    if isinstance(value, list):
        return f"{len(value)}, such as {value[0]}"
    return f"{value:.3f}" if isinstance(value, float) else VALUES.get(str(value), str(value))


def _between(interval: Sequence[float], sign: str = "") -> str:
    low, high = interval
    return f"[{low:{sign}.3f}, {high:{sign}.3f}]"


def _comparison(captions: str, against: Mapping[str, Any]) -> list[str]:
    """Return a line per score that both files have, and a verdict in words."""
    lines: list[str] = [f"{captions} minus {against['captions']}"]
    by_verdict: dict[str, list[str]] = {"higher": [], "lower": [], "no difference shown": []}
    if against["in_one_file_only"]:
        lines.append(f"  {'pictures in one file only':<{WIDTH}}{_in_words(against['in_one_file_only'])}")
    for key, found in against.items():
        if isinstance(found, dict):
            name, interval = NAMES[key], _between(found["95_interval"], "+")
            lines.append(f"  {name:<{WIDTH}}{found['difference']:+.3f} {interval} {found['verdict']}")
            by_verdict[found["verdict"]].append(name)
    said = [f"{verdict} in {', '.join(names)}" for verdict, names in by_verdict.items() if names]
    return [*lines, f"{captions} against {against['captions']}: {'; '.join(said)}"]


def _picture_verdict(metrics: Mapping[str, Any]) -> str:
    """Return whether the picture helps: whether it tells something for sure, and another picture costs something.

    A captioner that looks at no picture can beat the language model too, by its style; but another picture costs it
    nothing.
    """
    keys = ("picture_tells_per_caption", "wrong_picture_costs_per_caption")
    tells, costs = (f"{metrics[key]:.2f} {_between(metrics[key + INTERVAL])}" for key in keys)
    said = (f"in nats per reference caption, its own picture tells {tells} beyond what is known by "
            f"{metrics['without_picture']}, and another picture in its place costs {costs}")  # fmt: skip
    if all(metrics[key + INTERVAL][0] > 0 for key in keys):
        return f"the picture helps: {said}"
    return f"no evidence that the picture helps: {said}; both 95 % intervals must lie above 0"
