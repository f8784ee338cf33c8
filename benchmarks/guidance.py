"""The effect of guidance: how many captions differ, and how much more they say of their own picture than of another.

`python -m benchmarks.guidance RUN --images DIR --captions FILE --split test` prints one row per guidance. `cider` is
that of the captions against the references of their images, `cider_shuffled` that of captions written from another
image's embedding (the mean of several derangements); `gain` is the difference, with its 95 % interval over images.
"""

import argparse
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.analysis.scene_errors import share_right
from helpers.data.build_cache import build_cache
from helpers.data.dataset import Data, open_data
from helpers.evaluation.bootstrap import Score
from helpers.evaluation.coco import cider
from helpers.evaluation.controls import DERANGEMENTS, derangement
from helpers.models.decoding import Decoding
from helpers.models.writer import CaptionWriter
from helpers.words.ptb_tokenizer import ptb_words


def measure(
    writer: CaptionWriter, data: Data, splits: list[str], *, cache: Path, decodings: list[Decoding]
) -> pd.DataFrame:
    """Return one row per decoding. cache: a folder for the images' embeddings; missing ones are added."""
    chosen = data.captions[data.captions.split.isin(splits)]
    names = list(chosen.image_name.unique())
    rows = build_cache(cache, data.images, names, clip=writer.clip()).rows(names)
    others = [derangement(len(names), seed) for seed in range(DERANGEMENTS)]
    known = chosen.groupby("image_name").caption.apply(list)[names]
    table = []
    for decoding in decodings:
        # Without sampling a caption follows from its embedding alone, so shuffling captions shuffles embeddings.
        written = writer.write(rows, decoding)
        texts = ptb_words([*written, *known.explode()]).texts
        words, flat = texts[: len(names)], iter(texts[len(names) :])
        references = [list(islice(flat, len(each))) for each in known]
        true = cider(words, references)
        shuffled = [cider([words[row] for row in order], references).per_image for order in others]
        gain = Score.mean(true.per_image - np.mean(shuffled, axis=0))
        table.append({
            "guidance": decoding.guidance, "beams": decoding.beams, "images": len(names),
            "distinct": len(set(written)), "words": np.mean([len(caption.split()) for caption in written]),
            "cider": true.value, "cider_shuffled": true.value - gain.value, "gain": gain.value,
            "gain_low": gain.interval[0], "gain_high": gain.interval[1],
            "correct": share_right(names, written, data.facts) if data.facts else None,
        })  # fmt: skip
    return pd.DataFrame(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captioner", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--guidance", default="1,1.5,2,3")
    parser.add_argument("--beams", default="1")
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    decodings = [
        Decoding(beams=int(beams), guidance=float(strength))
        for beams in flags.beams.split(",") for strength in flags.guidance.split(",")
    ]  # fmt: skip
    data = open_data(flags.images, flags.captions, flags.splits)
    with tempfile.TemporaryDirectory() as cache:
        writer, splits = CaptionWriter.load(flags.captioner), flags.split.split(",")
        table = measure(writer, data, splits, cache=Path(cache), decodings=decodings)
    print(table.round(3).to_string(index=False))
    if flags.out:
        table.to_csv(flags.out, index=False)


if __name__ == "__main__":
    main()
