"""Does an exported captioner write what PyTorch writes? `python -m benchmarks.export_parity CAPTIONER ...`.

The captioner is exported anew and captions the first --photos photos of --split, greedy and with three beams: the share
of captions that are the same, in float32 and in int8, and CIDEr of each. Results: results/export_parity.json.
"""

import argparse
import json
import tempfile
from pathlib import Path

from helpers.data.dataset import open_data
from helpers.data.images import open_picture, picture_path
from helpers.evaluation.scores import measure
from helpers.export.export import export_captioner
from helpers.models.decoding import Decoding
from helpers.models.writer import CaptionWriter

RESULTS = Path(__file__).parent / "results" / "export_parity.json"
BATCH = 16  # photos in memory at a time


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captioner", type=Path)
    for name in ("images", "captions", "splits"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--photos", type=int, default=400)
    chosen = parser.parse_args()
    data = open_data(chosen.images, chosen.captions, chosen.splits)
    names = data.image_names(chosen.split)[: chosen.photos]
    references = [data.captions[data.captions.image_name == name].caption.tolist() for name in names]

    def batches():
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            yield {name: open_picture(picture_path(data.images, name)) for name in batch}

    with tempfile.TemporaryDirectory() as folder:
        report = export_captioner(chosen.captioner, Path(folder) / "exported", batches())
    writer = CaptionWriter.load(chosen.captioner)
    embeddings = [writer.embed(list(batch.values())) for batch in batches()]
    for decoding in (Decoding(), Decoding(beams=3)):
        expected = dict(zip(names, (text for each in embeddings for text in writer.write(each, decoding)), strict=True))
        report.setdefault("cider", {})[str(decoding)] = scores = {"pytorch": cider(expected.values(), references)}
        for kind in ("float", "int8"):
            other = {
                each["picture"]: each["exported"] for each in report[kind]["different"]
                if each["decoding"] == str(decoding)
            }  # fmt: skip
            scores[kind] = cider((expected | other).values(), references)
    for kind in ("float", "int8"):
        del report[kind]["different"]
    print(json.dumps(report, indent=1))
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


def cider(written, references: list[list[str]]) -> float:
    """Return CIDEr of captions in the order of their references."""
    return round(measure(list(written), references, meteor=False).measured["cider"].value, 4)


if __name__ == "__main__":
    main()
