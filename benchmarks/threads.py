"""Small models beside busy loops: `python -m benchmarks.threads` (make bench-threads) writes results/threads.json.

The work is 100 training steps of the tiny pair and the captions of 64 pictures, in a fresh process, on an idle machine
and beside one busy loop per core. It is timed with the project's choice of threads (`use_threads_for`) and with
PyTorch's own, which is timed once only, because beside busy loops it may take minutes. Goal: with the project's choice
a busy machine at most doubles the time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.arms import in_a_process, make_learner
from benchmarks.run import RESULTS, machine
from helpers.data.batches import CaptionBatches
from helpers.data.build_cache import build_cache
from helpers.data.dataset import open_data
from helpers.data.scenes import draw_world
from helpers.models.loading import load_encoder
from helpers.models.writer import CaptionWriter
from helpers.presets import preset
from helpers.runtime.files import write_json

GOAL = 2.0  # busy time over idle time, at most
STEPS, PICTURES = 100, 64
POLICIES = ("the project's choice", "PyTorch's choice")


def work(folder: Path, steps: int) -> dict[str, float]:
    """Train the tiny pair on a drawn world and caption its pictures; return the seconds and the number of threads."""
    config = preset("tiny")
    world = draw_world(folder / "world", images=PICTURES)
    data, clip = open_data(world / "flickr30k_images", world / "results.csv"), load_encoder(config.clip)
    cache = build_cache(folder / "embeddings", data.images, data.image_names(), clip=clip)
    writer = CaptionWriter.assemble(config, clip)
    batches = CaptionBatches(data.captions, cache, writer.tokenizer, batch_size=config.batch_size)
    learner = make_learner(writer.captioner, config, total=steps)
    embeddings = cache.rows(data.image_names())
    learner.learn(batches.at(0), 0)  # warms up
    begun = time.perf_counter()
    for step in range(1, steps + 1):
        learner.learn(batches.at(step), step)
    writer.captioner.eval()
    writer.write(embeddings)
    return {"seconds": time.perf_counter() - begun, "threads": torch.get_num_threads()}


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Keep that many processes spinning meanwhile."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(rounds: int, steps: int) -> dict[str, dict[str, Any]]:
    """Time both policies, idle and busy; return the seconds, threads and the ratio of each policy."""
    rows: dict[str, dict[str, Any]] = {policy: {"idle": [], "busy": []} for policy in POLICIES}
    for policy in [*[POLICIES[0]] * rounds, POLICIES[1]]:
        for state, loops in (("idle", 0), ("busy", os.cpu_count())):
            with busy_loops(loops):
                seen = in_a_process("threads", "--work", policy, "--steps", steps, threads=threads_of(policy))
            rows[policy][state].append(seen["seconds"])
            rows[policy]["threads"] = seen["threads"]
            print(f"{policy}, {state}: {seen['seconds']:.1f} s", flush=True)
    for row in rows.values():
        ratios = [busy / idle for idle, busy in zip(row["idle"], row["busy"], strict=True)]
        row |= {"ratio": statistics.median(ratios), "spread": [min(ratios), max(ratios)]}
    return rows


def threads_of(policy: str) -> int | None:
    """Return the number of threads to force on a process (OMP_NUM_THREADS), or None to leave it to the project."""
    return None if policy == POLICIES[0] else torch.get_num_threads()


def as_markdown(rows: dict[str, dict[str, Any]]) -> str:
    """Return the table as README.md has it."""
    lines = ["| threads | number | idle (s) | busy (s) | busy / idle |", "|---|---|---|---|---|"]
    for policy, row in rows.items():
        idle, busy = (statistics.median(row[state]) for state in ("idle", "busy"))
        ratio = "{:.2f} [{:.2f}, {:.2f}]".format(row["ratio"], *row["spread"])
        lines.append(f"| {policy} | {row['threads']} | {idle:.1f} | {busy:.1f} | {ratio} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and save; return 0 if the project's choice reaches its goal, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of the project's choice")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of threads.json")
    parser.add_argument("--work", choices=POLICIES, help="do the work once here and print its time")
    flags = parser.parse_args()
    if flags.work:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(work(Path(folder), flags.steps)))
        return 0
    rows = measure(flags.rounds, flags.steps)
    record = {"machine": machine(torch.get_num_threads()), "loops": os.cpu_count(), "goal": GOAL, "policies": rows}
    write_json(flags.out / "threads.json", record)
    print(as_markdown(rows))
    return int(rows[POLICIES[0]]["ratio"] > GOAL)


if __name__ == "__main__":
    sys.exit(main())
