"""What do a few photos of one's own teach the captioner that ships? `python -m benchmarks.own_photos --shared DIR`.

The captioner learned Flickr8k; one's own photos are here those of the Flickr30k sample that are not in Flickr8k. A
training goes on from `photo` with the first 30, 100, 300 and 1,000 of its training photos in an order drawn by the
seed. It is judged on all its validation and test photos, whose captions GPT-2 has never read (those of the training
photos it has), and on Flickr8k's validation photos: what does it learn, and what does it forget? Measured are CIDEr and
words of captions by 3 beams, and the loss in nats per token of the references. Results: results/own_photos.csv; rows
that it already has are not measured again.

DIR: a folder with flickr8k/ and flickr30k-sample/, each with its pictures, captions and splits.csv.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.data.batches import CaptionBatches
from helpers.data.build_cache import open_cache
from helpers.data.dataset import Data, open_data
from helpers.data.embedding_cache import EmbeddingCache
from helpers.evaluation.scores import measure
from helpers.models.decoding import Decoding
from helpers.models.writer import CaptionWriter
from helpers.presets import preset
from helpers.training.loop import train
from helpers.training.loss import CaptionLoss, validation_loss

RESULTS = Path(__file__).parent / "results" / "own_photos.csv"
PHOTOS = (30, 100, 300, 1000)
SEEDS = 5
GOING_ON = {  # what is changed of preset photo
    "start_from": "photo",
    "mapper_lr": 1e-4,
    "gpt2_lr": 3e-5,
    "batch_size": 32,
    "epochs": 5,
    "text_share": 0.0,
}


def number(name: str) -> str:
    """Return the number by which Flickr8k's and Flickr30k's name of a photo agree."""
    return name.split("_")[0].split(".")[0]


def judge(writer: CaptionWriter, data: Data, names: list[str], cache: EmbeddingCache) -> dict[str, float]:
    """Return CIDEr and words of the captions of these photos, and the loss of their references."""
    references = data.captions.groupby("image_name").caption.apply(list)
    written = writer.write(cache.rows(names), Decoding(beams=3))
    scores = measure(written, [references[name] for name in names], meteor=False).measured
    rows = data.captions[data.captions.image_name.isin(names)]
    batches = CaptionBatches(rows, cache, writer.tokenizer, batch_size=64)
    loss = validation_loss(CaptionLoss(writer.captioner), batches)
    return {"cider": scores["cider"].value, "words": scores["words"].value, "loss": loss}


def main() -> None:
    """Train, judge, print and save the results; what is finished is not trained again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/own-photos"))
    chosen = parser.parse_args()
    flickr8k, sample = (
        open_data(*(chosen.shared / folder / name for name in (pictures, captions, "splits.csv")))
        for folder, pictures, captions in (
            ("flickr8k", "Images", "captions.txt"), ("flickr30k-sample", "flickr30k_images", "results.csv"),
        )
    )  # fmt: skip
    known = {number(name) for name in flickr8k.image_names()}
    own, val, test = (
        [name for name in sample.image_names(split) if number(name) not in known] for split in ("train", "val", "test")
    )
    judged, before = [*val, *test], flickr8k.image_names("val")
    eyes = preset("photo")
    cache, cache_before = (
        open_cache(data, eyes, chosen.runs / f"{name}-embeddings")
        for name, data in (("own", sample), ("flickr8k", flickr8k))
    )
    rows: list[dict[str, Any]] = pd.read_csv(RESULTS).to_dict("records") if RESULTS.exists() else []
    done = {(row["arm"], row["photos"], row["seed"]) for row in rows}

    def record(writer: CaptionWriter, **what: Any) -> None:
        for name, found in (
            ("own", judge(writer, sample, judged, cache)),
            ("flickr8k", judge(writer, flickr8k, before, cache_before)),
        ):
            rows.append({**what, "judged_on": name, **{key: round(value, 4) for key, value in found.items()}})
            print(rows[-1], flush=True)
        pd.DataFrame(rows).to_csv(RESULTS, index=False)

    for seed in range(SEEDS):
        order = list(np.random.default_rng(seed).permutation(own))
        if ("as it ships", 0, seed) not in done:
            record(CaptionWriter.load("photo"), arm="as it ships", photos=0, seed=seed, seconds=0.0)
        for photos in (number for number in PHOTOS if ("goes on", number, seed) not in done):
            training = sample.captions.assign(split="other")
            training.loc[training.image_name.isin(order[:photos]), "split"] = "train"
            training.loc[training.image_name.isin(judged[:20]), "split"] = "val"  # for the history alone
            config = preset("photo").with_values(seed=seed, eval_every=10_000, **GOING_ON)
            run = train(config, training, cache.folder, out=chosen.runs / f"goes-on-{photos}-{seed}", resume=True)
            seconds = run.history().elapsed_seconds.iloc[-1]
            record(CaptionWriter.load(run.captioner), arm="goes on", photos=photos, seed=seed, seconds=seconds)
    table = pd.DataFrame(rows).groupby(["judged_on", "arm", "photos"])
    print(table[["cider", "words", "loss", "seconds"]].mean().round(3).to_string())


if __name__ == "__main__":
    main()
