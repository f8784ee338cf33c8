"""Which people and things do captions name? `python -m benchmarks.people CAPTIONS.csv ... --captioner RUN ...`.

CAPTIONS.csv: captions of held-out photos by several trainings of one recipe, as `clipxgpt evaluate` saves them. Each is
measured as `clipxgpt score --people` does; the shares are given over the trainings, the tables of the first. With
--captioner, greedy captions of the validation photos show what neutral words cost in CIDEr, against the references as
people wrote them and against the references in neutral words. The validation references also say how many of their
nouns the two lists of words hold, by the part-of-speech tagger of `pip install textblob`. Results: --out.
"""

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from helpers.data.dataset import open_data
from helpers.data.embedding_cache import EmbeddingCache
from helpers.evaluation.evaluate import over_trainings
from helpers.evaluation.people import AGE, GENDER, add_people_scores, agreed, which
from helpers.evaluation.score_file import read_written
from helpers.evaluation.scores import GROUPS, Scores, measure
from helpers.models.decoding import Decoding
from helpers.models.writer import CaptionWriter
from helpers.words.objects import object_words
from helpers.words.people import neutral, people_named, person_words

MEASURED = [key for heading, keys in GROUPS.items() if heading.startswith(("People", "Objects")) for key in keys]
TABLES = ("gender_named", "age_named", "objects_invented_most")
REST = 10  # nouns outside of both lists that are named


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("written", nargs="+", type=Path, metavar="CAPTIONS.csv")
    for name in ("captioner", "images", "captions", "splits", "cache", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    chosen = parser.parse_args()
    data = open_data(chosen.images, chosen.captions, chosen.splits)
    by_name = data.captions.groupby("image_name").caption.apply(list)
    val = data.image_names("val")
    known = [by_name[name] for name in val]

    found, names = {}, []
    for file in chosen.written:
        written = read_written(file)
        names = list(written)
        scores = add_people_scores(
            Scores({}, {}, {}, ""), written=list(written.values()), references=[by_name[name] for name in names]
        )
        found[str(file)] = scores.as_json()
    trainings = over_trainings(found)["scores"]
    results = {
        "command": shlex.join(["python", "-m", "benchmarks.people", *sys.argv[1:]]),
        "photos": len(names),
        "decided": {what: decided([by_name[name] for name in names], pair) for what, pair in
                    (("gender", GENDER), ("age", AGE))},
        "trainings": {name: trainings[name] for name in MEASURED},
        "first": {name: next(iter(found.values()))[name] for name in TABLES},
        "neutral": cost(CaptionWriter.load(chosen.captioner).write(EmbeddingCache.open(chosen.cache).rows(val)), known),
        "nouns": nouns(text for texts in known for text in texts),
    }  # fmt: skip
    text = json.dumps(rounded(results), indent=1)
    print(text)
    chosen.out.write_text(text + "\n")


def decided(references: Sequence[Sequence[str]], pair: tuple[str, str]) -> dict[str, int]:
    """Return for how many photos most references name one of the pair alone, and for how many of these all do."""
    found = {"by most": 0, "by all": 0}
    for texts in references:
        named = [people_named(text) for text in texts]
        if agreed(named, pair) in pair:
            found["by most"] += 1
            found["by all"] += len({which(each, pair) for each in named}) == 1
    return found


def cost(written: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return CIDEr of captions as they are and in neutral words, with the paired differences."""
    worded, neutral_references = list(map(neutral, written)), [list(map(neutral, texts)) for texts in references]
    plain = measure(written, references, meteor=False)
    results: dict[str, Any] = {
        "photos": len(written),
        "decoding": str(Decoding()),
        "captions_reworded": sum(one != other for one, other in zip(written, worded, strict=True)) / len(written),
        "as_written": {"cider": plain.measured["cider"].value, "95_interval": plain.measured["cider"].interval},
    }
    for name, texts in (("neutral", references), ("neutral_by_neutral_references", neutral_references)):
        cider = measure(worded, texts, meteor=False).measured["cider"]
        results[name] = {"cider": cider.value, "95_interval": cider.interval,
                         "minus_as_written": cider.minus(plain.measured["cider"])}  # fmt: skip
    return results


def nouns(texts: Iterable[str]) -> dict[str, Any]:
    """Return how many nouns there are, the shares that the lists hold, and the commonest of the rest."""
    from textblob.en import tag  # a lexicon in the package, so that nothing is downloaded

    counts: dict[str, Counter[str]] = {"people": Counter(), "objects": Counter(), "neither": Counter()}
    for text in texts:
        for word, part in tag(text.lower()):
            if part.startswith("NN") and word.isalpha():
                kind = "people" if word in person_words() else "objects" if word in object_words() else "neither"
                counts[kind][word] += 1
    number = sum(map(Counter.total, counts.values()))
    rest = dict(counts["neither"].most_common(REST))
    return {"number": number, **{kind: each.total() / number for kind, each in counts.items()}, "commonest_rest": rest}


def rounded(value: Any) -> Any:
    """Return the floats in what a JSON holds with four decimals."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
