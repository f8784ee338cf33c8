"""Does a captioner notice a picture unlike those of its training? `python -m benchmarks.familiarity --photos DIR`.

Two captioners judge pictures by what they remember of their training (helpers/models/familiarity.py): the tiny one's
encoder learns the drawn world's training pictures and judges its test pictures; the captioner of photos that ships
judges DIR, photos that it was not trained on. Both judge pictures of other kinds. Measured are the share that is called
unlike the training, and how well strangeness tells the two apart (AUROC: 0.5 is chance, 1 is perfect). Results:
results/familiarity.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from helpers.data.build_cache import open_cache
from helpers.data.dataset import Data, open_drawn_world
from helpers.data.images import open_picture
from helpers.models.writer import CaptionWriter
from helpers.presets import preset

RESULTS = Path(__file__).parent / "results" / "familiarity.json"
PICTURES = 150  # of each kind
AT_A_TIME = 32  # pictures that are embedded together


def other_pictures() -> dict[str, list[Image.Image]]:
    """Return pictures that are neither drawn scenes nor photos, by kind."""
    rng = np.random.default_rng(0)
    return {
        "noise": [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(PICTURES)],
        "plain colors": [Image.new("RGB", (64, 64), tuple(rng.integers(0, 256, 3).tolist())) for _ in range(PICTURES)],
        "pages of text": [_page(rng) for _ in range(PICTURES)],
    }


def _page(rng: np.random.Generator) -> Image.Image:
    """Return a page as a screenshot shows one: lines of words, dark on light or light on dark."""
    paper, ink = ("white", "black") if rng.random() < 0.5 else ("#1e1e1e", "#d4d4d4")
    page = Image.new("RGB", (480, 360), paper)
    draw = ImageDraw.Draw(page)
    for line in range(4, 350, int(rng.integers(12, 20))):
        words = ["".join(rng.choice(list("abcdefghij ()=.:"), size=rng.integers(2, 9))) for _ in range(10)]
        draw.text((int(rng.integers(4, 60)), line), " ".join(words), fill=ink)
    return page


def strangeness(writer: CaptionWriter, pictures: list[Image.Image]) -> torch.Tensor:
    """Return the strangeness of each picture, float32 [N]."""
    parts = [pictures[start : start + AT_A_TIME] for start in range(0, len(pictures), AT_A_TIME)]
    return torch.cat([writer.captioner.strangeness(writer.embed(part)) for part in parts])


def auroc(familiar: torch.Tensor, strange: torch.Tensor) -> float:
    """Return the probability that a strange picture's strangeness is above a familiar one's."""
    above = (strange[:, None] > familiar).double() + (strange[:, None] == familiar).double() / 2
    return above.mean().item()


def judge(
    writer: CaptionWriter, familiar: tuple[str, list[Image.Image]], others: dict[str, list[Image.Image]]
) -> dict[str, dict[str, float]]:
    """Return what a captioner says of pictures like its training's, and of other kinds; print it."""
    name, pictures = familiar
    known = strangeness(writer, pictures)
    results = {name: {"pictures": len(known), "unlike": (known > 1).float().mean().item()}}
    for kind, pictures in others.items():
        found = strangeness(writer, pictures)
        unlike = (found > 1).float().mean().item()
        results[kind] = {"pictures": len(found), "unlike": unlike, "auroc": auroc(known, found)}
    for kind, found in results.items():
        print(f"  {kind:<22}" + "  ".join(f"{name} {value:.3g}" for name, value in found.items()))
    return results


def tiny_writer(data: Data) -> CaptionWriter:
    """Return an untrained tiny captioner that knows the drawn world's training pictures."""
    writer = CaptionWriter.assemble(preset("tiny"))
    writer.captioner.prepare_for(open_cache(data, preset("tiny")).rows(data.image_names("train")))
    return writer


def main() -> None:
    """Measure, print, and save the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--names", type=Path, help="CSV with image_name and split, of which val and test are taken")
    parser.add_argument("--more", type=Path, action="append", default=[], help="folder of other photos to judge")
    options = parser.parse_args()
    paths = sorted(options.photos.iterdir())
    if options.names:
        rows = [line.split(",") for line in options.names.read_text("utf-8").split()[1:]]
        paths = [options.photos / name for name, split in rows if split in ("val", "test")]
    photos = [open_picture(path) for path in paths]
    data = open_drawn_world()
    drawn = [open_picture(data.images / name) for name in data.image_names("test")]
    more = {folder.name: [open_picture(path) for path in sorted(folder.iterdir())] for folder in options.more}
    results = {}
    print("tiny")
    results["tiny"] = judge(
        tiny_writer(data), ("drawn test pictures", drawn), {**other_pictures(), "photos": photos[:PICTURES]}
    )
    print("photo")
    results["photo"] = judge(
        CaptionWriter.load("photo"), ("photos not trained on", photos),
        {**other_pictures(), "drawn pictures": drawn[:PICTURES], **more},
    )  # fmt: skip
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
