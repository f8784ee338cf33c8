"""Is a captioner of photos as often right as it is sure? `python -m benchmarks.calibration RUN... --images DIR ...`.

RUN: runs of one recipe with different seeds, trained on the photos whose split is "train"; judged on those of "val".
Two curves (helpers/analysis/calibration.py) over all runs together:

next token: every token of every reference is asked for, given the tokens before it. Said is the likeliest token, and it
    is right if the reference goes on with it.
own words: each run writes greedy captions. Said is each of their words that not more than half of the photos have in a
    reference ("a" is left out), and it is right if any reference of the photo has it.

The expected calibration error (ECE) is given for each run. Results: notebooks/results/calibration.json.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from benchmarks.run import machine
from helpers.analysis.calibration import calibration_error, reliability, words_in_references
from helpers.analysis.introspection import word_confidence
from helpers.data.batches import IGNORE, CaptionBatches
from helpers.data.dataset import Data, open_data
from helpers.data.embedding_cache import EmbeddingCache
from helpers.models.writer import CaptionWriter

RESULTS = Path(__file__).parents[1] / "notebooks" / "results" / "calibration.json"


@torch.no_grad()
def next_tokens(writer: CaptionWriter, captions: pd.DataFrame, cache: EmbeddingCache) -> pd.DataFrame:
    """Return the likeliest next token at each place of each caption: DataFrame[picture, confidence, right]."""
    batches, rows = CaptionBatches(captions, cache, writer.tokenizer, batch_size=64), []
    for places in batches.in_order():
        batch = batches.rows(places)
        chances, tokens = writer.captioner(batch.input_ids, batch.embeddings).logits.softmax(dim=-1).max(dim=-1)
        there = batch.labels != IGNORE  # [B, T]
        picture = batches.image_of[places].unsqueeze(1).expand_as(there)
        right = tokens == batch.labels
        rows.append(torch.stack([picture[there].double(), chances[there].double(), right[there].double()], dim=1))
    return pd.DataFrame(torch.cat(rows).numpy(), columns=["picture", "confidence", "right"])


def own_words(writer: CaptionWriter, data: Data, names: Sequence[str], cache: EmbeddingCache) -> pd.DataFrame:
    """Return the words of greedy captions: DataFrame[picture, word, confidence, right]."""
    embeddings, references = cache.rows(names), data.captions.groupby("image_name").caption.apply(list)[names]
    return words_in_references(word_confidence(writer, embeddings, writer.write(embeddings)), list(references))


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    for name in ("images", "captions", "splits", "cache"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    data, cache = open_data(chosen.images, chosen.captions, chosen.splits), EmbeddingCache.open(chosen.cache)
    names, captions = data.image_names("val"), data.rows("val")
    said: dict[str, list[pd.DataFrame]] = {"next token": [], "own words": []}
    for run in chosen.runs:
        writer = CaptionWriter.load(run)
        said["next token"].append(next_tokens(writer, captions, cache))
        said["own words"].append(own_words(writer, data, names, cache))
    curves = {}
    for name, tables in said.items():
        each = [reliability(table.confidence, table.right, pictures=table.picture) for table in tables]
        table = pd.concat(tables)
        curve = reliability(table.confidence, table.right, pictures=table.picture)
        print(name, *(f"ECE {calibration_error(one):.3f}" for one in each), curve.round(3).to_string(), sep="\n")
        curves[name] = {"ece": [round(calibration_error(one), 4) for one in each],
                        "curve": curve.round(4).to_dict(orient="list")}  # fmt: skip
    options = f"--images Images --captions captions.txt --splits splits.csv --cache {chosen.cache}"
    results = {
        "command": f"python -m benchmarks.calibration {' '.join(map(str, chosen.runs))} {options}",
        "data": f"Flickr8k, {len(names)} validation photos, {len(captions)} references",
        "machine": machine(threads=1),
        "curves": curves,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
