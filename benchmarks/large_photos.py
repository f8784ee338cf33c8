"""What becomes of photos larger than those of the training? `python -m benchmarks.large_photos --shared DIR`.

The captioner of photos learned from JPEG files of 224 pixels, and makes such a file of every larger photo first
(`reduce_to`). The same photos are captioned in four ways: as they are, resized, reduced by the captioner, and as the
files of 224 pixels that the collection has. Measured are the share that is called unlike the training, and CIDEr of
captions by 3 beams with its 95 % interval over photos. Photos that the captioner was trained on, under another name, do
not count. Results: results/large_photos.json.

DIR: a folder with flickr8k/ and flickr30k-sample/, the latter with full_size/.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from benchmarks.own_photos import number
from helpers.data.dataset import open_data
from helpers.data.images import open_picture
from helpers.evaluation.scores import measure
from helpers.models.decoding import Decoding
from helpers.models.writer import CaptionWriter
from helpers.runtime.files import write_json

RESULTS = Path(__file__).parent / "results" / "large_photos.json"
AT_A_TIME = 16  # photos that are embedded together


def embed(writer: CaptionWriter, photos: list[Image.Image], *, reduce: bool) -> torch.Tensor:
    """Return the photos' embeddings, [N, D]; unless `reduce` is on, larger photos go to the encoder as they are."""
    processor = writer.clip().processor
    given, processor.reduce_to = processor.reduce_to, processor.reduce_to if reduce else None
    parts = [writer.embed(photos[start : start + AT_A_TIME]) for start in range(0, len(photos), AT_A_TIME)]
    processor.reduce_to = given
    return torch.cat(parts)


def main() -> None:
    """Measure, print, and save the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    chosen = parser.parse_args()
    trained = open_data(*(chosen.shared / "flickr8k" / name for name in ("Images", "captions.txt", "splits.csv")))
    folder = chosen.shared / "flickr30k-sample"
    sample = open_data(*(folder / name for name in ("flickr30k_images", "results.csv", "splits.csv")))
    known = {number(name) for name in trained.image_names("train")}
    paths = sorted(path for path in (folder / "full_size").iterdir() if number(path.name) not in known)
    large, small = (
        [open_picture(place / path.name) for path in paths] for place in (folder / "full_size", sample.images)
    )
    by_name = sample.captions.groupby("image_name").caption.apply(list)
    references, writer = [by_name[path.name] for path in paths], CaptionWriter.load("photo")
    side = writer.clip().processor.reduce_to
    resized = [photo.resize((side, side), Image.Resampling.BICUBIC) for photo in large]
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "as they are": lambda: embed(writer, large, reduce=False),
        "resized": lambda: embed(writer, resized, reduce=False),
        "reduced by the captioner": lambda: embed(writer, large, reduce=True),
        "the collection's files of 224 pixels": lambda: embed(writer, small, reduce=True),
    }
    results = {"photos": len(paths), "ways": {}}
    for way, embedded in ways.items():
        embeddings = embedded()
        cider = measure(writer.write(embeddings, Decoding(beams=3)), references, meteor=False).measured["cider"]
        unlike = sum(writer.unlike_training(embeddings)) / len(paths)
        results["ways"][way] = {"unlike": unlike, "cider": cider.value, "cider_95_interval": list(cider.interval)}
        print(f"{way}: {unlike:.0%} unlike, CIDEr {cider.value:.3f} [{cider.interval[0]:.3f}, {cider.interval[1]:.3f}]")
    write_json(RESULTS, results)


if __name__ == "__main__":
    main()
