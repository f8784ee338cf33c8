"""Growth of time and memory: `python -m benchmarks.growth` (make bench-growth) writes results/growth.csv and a figure.

Each point is measured in a process of its own, training steps at real size with random weights, as in arms.py.
"""

import json
import os
import sys
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.arms import Arm, in_a_process, our_cache, our_step, timed
from helpers.data.batches import caption_tokens
from helpers.models.loading import load_gpt2
from helpers.plots.base import BLUE, ORANGE, save_figure
from helpers.runtime.files import write_text

RESULTS = Path(__file__).parent / "results"
POINTS = {  # what grows, and its sizes
    "images in the cache": (1_000, 3_000, 10_000, 30_000, 100_000),
    "captions": (5_000, 15_000, 50_000, 150_000),
    "prefix length": (1, 4, 10, 20, 40),
    "batch size": (16, 64, 256, 512),
}
WORDS = {
    "images in the cache": "open it and read 1,000 rows",
    "captions": "tokenise them, once a session",
    "prefix length": "a training step of 64 captions",
    "batch size": "a training step",
}
LOOK = "A small dog runs through the tall grass while a man in a red shirt is watching it ."


def arm(what: str, value: int) -> Arm:
    if what == "images in the cache":
        return our_cache(rows=value, read=1_000)
    if what == "captions":
        return tokenised(value)
    return our_step("small", prefix=value) if what == "prefix length" else our_step("small", captions=value)


def tokenised(captions: int) -> Arm:
    def set_up():
        tokenizer, texts = load_gpt2("tiny")[1], [f"{LOOK[: 30 + number % 50]} {number}" for number in range(captions)]
        return lambda: caption_tokens(tokenizer, texts, 64), 1

    return set_up


def measure(what: str, value: int, threads: int) -> dict[str, object]:
    seen = in_a_process("growth", what, value, threads)
    # The memory of a step includes the model; that of reading and tokenising is what they add.
    kind = "peak_gb" if what in ("batch size", "prefix length") else "grown_gb"
    return {"what": what, "value": value, "seconds": min(seen["seconds"]) * seen["items"], "memory_gb": seen[kind]}


def plot_growth(results: pd.DataFrame) -> Figure:
    """Plot seconds and memory of each work against its size, with logarithmic axes for reading and tokenising."""
    figure = Figure(figsize=(13, 5), layout="constrained")
    for column, (what, rows) in zip(
        figure.subplots(2, len(POINTS)).T, results.groupby("what", sort=False), strict=True
    ):
        for axis, measure, color in zip(column, ("seconds", "memory_gb"), (BLUE, ORANGE), strict=True):
            axis.plot(rows.value, rows[measure], color=color, marker="o")
            if what in ("prefix length", "batch size"):
                axis.set_ylim(bottom=0)
            else:
                axis.set(xscale="log", yscale="log")
                for each in (axis.xaxis, axis.yaxis):
                    each.set_minor_formatter(NullFormatter())
            axis.set(xlabel=what, ylabel=measure.replace("_gb", " (GB)"))
            axis.grid(color="#e6e8eb")
            axis.spines[["top", "right"]].set_visible(False)
        column[0].set_title(WORDS[what], fontsize=9)
    return figure


def main() -> None:
    threads = os.cpu_count()
    rows = []
    for what, values in POINTS.items():
        for value in values:
            rows.append(measure(what, value, threads))
            print(rows[-1], flush=True)
    results = pd.DataFrame(rows).round(5)
    write_text(RESULTS / "growth.csv", results.to_csv(index=False))
    save_figure(plot_growth(results), RESULTS / "growth.png")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        torch.set_num_threads(int(sys.argv[3]))
        print(json.dumps(timed(arm(sys.argv[1], int(sys.argv[2])), repetitions=1 if "size" in sys.argv[1] else 2)))
