"""What guidance does to captions: how many differ, and how much more they say of their own picture than of another one.

`python -m benchmarks.guidance RUN/captioner --images DIR --captions FILE --split test` writes a row for each guidance.
CIDEr is that of the captions against the references of their images, "shuffled" against captions written from another
image's embedding (the mean of five derangements), with the 95 % interval over images of true minus shuffled.
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
from helpers.evaluation.ptb_tokenizer import tokenize
from helpers.models.decoding import Decoding
from helpers.models.writer import CaptionWriter


def measure(
    writer: CaptionWriter, data: Data, splits: list[str], cache: Path, decodings: list[Decoding]
) -> pd.DataFrame:
    """A row for each decoding. cache: the folder of the images' embeddings, which is filled where it is not."""
    references = data.captions[data.captions.split.isin(splits)]
    names = list(references.image_name.unique())
    rows = build_cache(cache, data.images, names, writer.clip()).rows(names)
    others = [derangement(len(names), seed) for seed in range(DERANGEMENTS)]
    known = references.groupby("image_name").caption.apply(list)[names]
    table = []
    for decoding in decodings:
        # Without sampling a caption follows from its embedding alone: captions are shuffled as embeddings would be.
        written = writer.write(rows, decoding)
        texts = tokenize([*written, *known.explode()]).texts
        captions, flat = texts[: len(names)], iter(texts[len(names) :])
        words = [list(islice(flat, len(each))) for each in known]
        true = cider(captions, words)
        shuffled = [cider([captions[row] for row in order], words).per_image for order in others]
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
        table = measure(CaptionWriter.load(flags.captioner), data, flags.split.split(","), Path(cache), decodings)
    print(table.round(3).to_string(index=False))
    if flags.out:
        table.to_csv(flags.out, index=False)


if __name__ == "__main__":
    main()
