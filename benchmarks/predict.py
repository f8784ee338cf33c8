"""How long does `clipxgpt predict` take with the captioner of photos? `python -m benchmarks.predict [--photos DIR]`.

- One photo: the time of the whole command, less that of importing torch and transformers' GPT-2 in the same Python,
  five turns of both.
- A folder: photos per second after the first answer, end to end with the decoding of JPEGs, in batches as the command
  makes them and one by one.

Without --photos the JPEGs are drawn: noise, 500 x 375 pixels. Results: results/predict.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.commands.predict import BATCH
from helpers.data.images import open_picture
from helpers.models.writer import CaptionWriter

RESULTS = Path(__file__).parent / "results" / "predict.json"
TURNS = 5
PHOTOS = 96
IMPORTS = "import torch; from transformers import GPT2LMHeadModel"


def seconds_of(*arguments: str) -> float:
    """Return how long a new Python takes for these arguments."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - begun


def photos_per_second(writer: CaptionWriter, paths: list[Path], batch: int) -> float:
    """Return how many photos are opened, embedded and captioned per second."""
    begun = time.perf_counter()
    for start in range(0, len(paths), batch):
        writer.write(writer.embed([open_picture(path) for path in paths[start : start + batch]]))
    return len(paths) / (time.perf_counter() - begun)


def draw_photos(folder: Path) -> list[Path]:
    """Save JPEGs of smooth noise as large as Flickr30k's photos, and return their paths."""
    rng, paths = np.random.default_rng(0), []
    for number in range(PHOTOS):
        small = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        paths.append(folder / f"{number:03}.jpg")
        small.resize((500, 375), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def main() -> None:
    """Measure, print and save the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of JPEGs")
    chosen = parser.parse_args().photos
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted(chosen.glob("*.jpg"))[:PHOTOS] if chosen else draw_photos(Path(folder))
        one = str(paths[0])
        turns = [(seconds_of("-c", IMPORTS), seconds_of("-m", "helpers", "predict", one)) for _ in range(TURNS)]
        imports, whole = (sorted(times) for times in zip(*turns, strict=True))
        writer = CaptionWriter.load("photo")
        photos_per_second(writer, paths[:BATCH], BATCH)  # warm up
        speeds = {f"batches of {batch}": photos_per_second(writer, paths, batch) for batch in (BATCH, 1)}
    middle = TURNS // 2
    results = {
        "seconds_of_imports": round(imports[middle], 2),
        "seconds_of_predict": round(whole[middle], 2),
        "seconds_beyond_imports": round(float(np.median([b - a for a, b in turns])), 2),
        "photos": len(paths),
        "photos_per_second": {name: round(speed, 1) for name, speed in speeds.items()},
    }
    print(json.dumps(results, indent=1))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
