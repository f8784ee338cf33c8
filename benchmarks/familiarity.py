"""Does a captioner notice a picture unlike those of its training? `python -m benchmarks.familiarity [--photos DIR]`.

The tiny captioner's encoder learns what the drawn world's training pictures look like (helpers/models/familiarity.py).
Then it judges the held-out test pictures, which should be familiar, and noise, plain colors and photos, which should
not: the share that it calls unlike the training, and how well strangeness tells the two apart (AUROC: 0.5 is chance, 1
is perfect). Results: results/familiarity.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from helpers.config import preset
from helpers.data.build_cache import open_cache
from helpers.data.dataset import open_drawn_world
from helpers.data.images import open_picture
from helpers.models.loading import load_encoder
from helpers.models.writer import CaptionWriter

RESULTS = Path(__file__).parent / "results" / "familiarity.json"
PICTURES = 150  # of each kind


def strange_pictures(photos: Path | None) -> dict[str, list[Image.Image]]:
    """Return pictures that are no drawn scenes, by kind."""
    rng = np.random.default_rng(0)
    kinds = {
        "noise": [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(PICTURES)],
        "plain colors": [Image.new("RGB", (64, 64), tuple(rng.integers(0, 256, 3).tolist())) for _ in range(PICTURES)],
    }
    if photos:
        kinds["photos"] = [open_picture(path) for path in sorted(photos.iterdir())[:PICTURES]]
    return kinds


def auroc(familiar: torch.Tensor, strange: torch.Tensor) -> float:
    """Return the probability that a strange picture's strangeness is above a familiar one's."""
    above = (strange[:, None] > familiar).double() + (strange[:, None] == familiar).double() / 2
    return above.mean().item()


def main() -> None:
    """Measure, print a table, and save the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of photos")
    photos = parser.parse_args().photos
    config, data = preset("tiny"), open_drawn_world()
    cache, encoder = open_cache(data, config), load_encoder("tiny")
    captioner = CaptionWriter.assemble(config, encoder).captioner
    captioner.prepare_for(cache.rows(data.image_names("train")))
    held_out = captioner.strangeness(cache.rows(data.image_names("test")))
    results = {"drawn test pictures": {"pictures": len(held_out), "unlike": (held_out > 1).float().mean().item()}}
    for kind, pictures in strange_pictures(photos).items():
        found = captioner.strangeness(encoder.embed(pictures))
        unlike = (found > 1).float().mean().item()
        results[kind] = {"pictures": len(pictures), "unlike": unlike, "auroc": auroc(held_out, found)}
    for kind, found in results.items():
        print(f"{kind:<22}" + "  ".join(f"{name} {value:.3g}" for name, value in found.items()))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
