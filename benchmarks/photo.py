"""Score captioners of photos beside what needs no captioner: `python -m benchmarks.photo RUN... --images DIR ...`.

RUN: runs of one recipe with different seeds, trained on the photos whose split is "train". Each writes captions of the
photos of --split, which are scored against their references: CIDEr, BLEU-4, the share of different captions, and CIDEr
with another photo's embedding. Beside them stand the nearest training photo's caption and the consensus of the 40
nearest (consensus.py), with the paired differences to the first run. Intervals: 95 %, bootstrap over photos.
Results: --out.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.consensus import Consensus
from helpers.data.dataset import open_data
from helpers.data.embedding_cache import EmbeddingCache
from helpers.evaluation import controls
from helpers.evaluation.scores import Scores, measure
from helpers.models.decoding import Decoding
from helpers.models.writer import CaptionWriter
from helpers.words.ptb_tokenizer import ptb_words

SCORES = ("cider", "bleu_4", "bleu_1", "rouge_l")


def summary(scores: Scores, written: list[str]) -> dict[str, Any]:
    """Return the scores with their intervals, and the share of different captions."""
    values = {name: round(scores.measured[name].value, 4) for name in SCORES}
    values |= {f"{name}_95_interval": [round(end, 4) for end in scores.measured[name].interval] for name in SCORES}
    return values | {"distinct": round(len(set(written)) / len(written), 4)}


def main() -> None:
    """Measure, print a table, and save the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    for name in ("images", "captions", "splits", "cache", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--beams", type=int, default=3)
    chosen = parser.parse_args()
    data = open_data(chosen.images, chosen.captions, chosen.splits)
    cache = EmbeddingCache.open(chosen.cache)
    names, training = data.image_names(chosen.split), data.image_names("train")
    by_name = data.captions.groupby("image_name").caption.apply(list)
    references = [by_name[name] for name in names]

    arms: dict[str, list[str]] = {}
    for run in chosen.runs:
        writer, decoding = CaptionWriter.load(run), Decoding(beams=chosen.beams)
        arms[str(run)] = writer.write(cache.rows(names), decoding)
        arms[f"{run}, greedy"] = writer.write(cache.rows(names))
        arms[f"{run}, another photo"] = writer.write(controls.shuffled(cache, names)[:], decoding)
    words = iter(ptb_words([text for name in training for text in by_name[name]])[0])
    neighbours = Consensus(cache.rows(training), [[next(words) for _ in by_name[name]] for name in training])
    arms["nearest caption"] = neighbours.nearest(cache.rows(names))
    arms["consensus of 40"] = neighbours.write(cache.rows(names))

    scored = {arm: measure(written, references, meteor=False) for arm, written in arms.items()}
    results = {"photos": len(names), "split": chosen.split, "beams": chosen.beams,
               "tokenizer": next(iter(scored.values())).tokenizer,
               "arms": {arm: summary(scores, arms[arm]) for arm, scores in scored.items()}}  # fmt: skip
    first = scored[str(chosen.runs[0])]
    results["first run minus"] = {
        arm: {name: first.minus(scored[arm])[name] for name in ("cider", "bleu_4")}
        for arm in ("nearest caption", "consensus of 40")
    }
    values = [results["arms"][str(run)]["cider"] for run in chosen.runs]
    spread = float(np.std(values, ddof=1)) if values[1:] else None
    results["cider_over_runs"] = {"mean": float(np.mean(values)), "std": spread}
    for arm, row in results["arms"].items():
        print(f"{arm:<40} CIDEr {row['cider']:.3f} {row['cider_95_interval']}  BLEU-4 {row['bleu_4']:.3f}  "
              f"different {row['distinct']:.0%}")  # fmt: skip
    print(json.dumps(results["first run minus"]))
    chosen.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
