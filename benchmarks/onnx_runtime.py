"""Is `predict --runtime onnx` faster than with PyTorch? `python -m benchmarks.onnx_runtime [CAPTIONER] [--photos DIR]`.

The captioner is exported, by default the one of photos. PyTorch, the exported graphs and their smaller ones then take
turns, each in a process of its own: seconds of the whole command for one photo; photos per second after the first
batch, end to end with the decoding of JPEGs, greedy and with three beams; and the most memory. What counts is the ratio
within a turn. Results: results/onnx_runtime.json.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from helpers.commands.predict import BATCH
from helpers.data.images import open_picture
from helpers.models.decoding import Decoding

RESULTS = Path(__file__).parent / "results" / "onnx_runtime.json"
TURNS = 3
PHOTOS = 96


def work(runtime: str, captioner: str, paths: list[Path]) -> dict[str, float]:
    """Caption photos in this process; return photos per second by decoding, and its most memory in MB."""
    if runtime == "onnx":
        from helpers.export.writer import OnnxWriter as Writer
    else:
        from helpers.models.writer import CaptionWriter as Writer
    writer = Writer.load(captioner)
    writer.write(writer.embed([open_picture(path) for path in paths[:BATCH]]))  # warm up
    found = {}
    for decoding in (Decoding(), Decoding(beams=3)):
        begun = time.perf_counter()
        for start in range(0, len(paths), BATCH):
            pictures = [open_picture(path) for path in paths[start : start + BATCH]]
            writer.write(writer.embed(pictures), decoding)
        found[f"photos_per_second, {decoding}"] = len(paths) / (time.perf_counter() - begun)
    most = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())  # of this program, not its parent's
    return found | {"megabytes": int(most[1]) / 1024}


def turn(runtime: str, captioner: Path, folder: Path) -> dict[str, float]:
    """Return what `work` measures in a new process, and the seconds of the command for one photo."""
    chosen = ["-C", str(captioner), "--runtime", runtime]
    begun = time.perf_counter()
    one = str(min(folder.glob("*.jpg")))
    subprocess.run([sys.executable, "-m", "helpers", "predict", *chosen, one], check=True, capture_output=True)
    seconds = time.perf_counter() - begun
    arguments = [str(captioner), "--photos", str(folder), "--work", runtime]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.onnx_runtime", *arguments], check=True, capture_output=True, text=True
    )
    return {"seconds_of_command": seconds, **json.loads(done.stdout)}


def main() -> None:
    """Measure, print and save the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captioner", type=Path, nargs="?", default=Path("helpers/photo"))
    parser.add_argument("--photos", type=Path, help="folder of JPEGs; without it they are drawn")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        print(json.dumps(work(chosen.work, str(chosen.captioner), sorted(chosen.photos.glob("*.jpg"))[:PHOTOS])))
        return
    from benchmarks.predict import draw_photos  # imports PyTorch, which must not count for the other arms
    from helpers.export.export import export_captioner

    with tempfile.TemporaryDirectory() as place:
        exported, photos = Path(place) / "exported", chosen.photos or Path(place) / "photos"
        export_captioner(chosen.captioner, exported)
        if chosen.photos is None:
            photos.mkdir()
            draw_photos(photos)
        arms = {
            "pytorch": ("torch", chosen.captioner),
            "float": ("onnx", exported),
            "int8": ("onnx", exported / "int8"),
        }
        turns = [{name: turn(*arm, photos) for name, arm in arms.items()} for _ in range(TURNS)]
    results = {"cores": os.cpu_count(), "busy": round(os.getloadavg()[1] / os.cpu_count(), 2), "turns": TURNS}
    for measure in turns[0]["pytorch"]:
        results[measure] = {name: round(float(np.median([each[name][measure] for each in turns])), 2) for name in arms}
        for name in ("float", "int8"):
            ratios = [each[name][measure] / each["pytorch"][measure] for each in turns]
            results[measure][f"{name} / pytorch"] = [round(float(part), 2) for part in np.quantile(ratios, [0, 0.5, 1])]
    print(json.dumps(results, indent=1))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
