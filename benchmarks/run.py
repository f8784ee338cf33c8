"""The table of all works, baseline and ours in turns, with the ratio, its spread and the goal.

`python -m benchmarks.run` (make bench) writes results/table.json; `--quick` times fewer works and writes no file.
"""

import argparse
import json
import os
import platform
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks import limit
from benchmarks.arms import OURS, WORKS, in_a_process
from helpers.experiments.record import cpu_name
from helpers.runtime.device import PRECISIONS, choose_accelerator
from helpers.runtime.files import write_text

RESULTS = Path(__file__).parent / "results"
GOALS = {  # times as fast as the baseline: in float32, in the machine's best precision; share of its memory
    "training step, GPT-2 small": (2.2, 5.0, 0.45),
    "training step, GPT-2 medium": (None, 4.0, 0.5),
    "training step, after ClipCap": (None, 15.0, None),
    "training step, after ClipCap, same model": (None, None, None),
    "greedy captions": (20.0, 55.0, None),
    "beam search, 5 beams": (None, 30.0, None),
    "embedding photos": (None, 4.5, None),
    "reading 10,000 of 100,000 rows": (50.0, None, 0.05),
}
ROUNDS = {  # turns of all arms, and repetitions of the work in each
    "training step, GPT-2 small": (2, 2),
    "training step, GPT-2 medium": (1, 2),
    "training step, after ClipCap": (1, 2),
    "training step, after ClipCap, same model": (1, 2),
    "beam search, 5 beams": (1, 2),
    "embedding photos": (2, 2),
}
QUICK = ("greedy captions", "embedding photos", "reading 10,000 of 100,000 rows")
LIMITS: dict[str, Callable[[], tuple[Counter, int]]] = {  # the bare matrix products, and the items they are for
    "training step, GPT-2 small": lambda: (limit.training_step("small"), 64),
    "training step, GPT-2 medium": lambda: (limit.training_step("medium"), 64),
    "training step, after ClipCap": lambda: (limit.training_step("small"), 64),
    "greedy captions": lambda: (limit.captions(), 64),
    "beam search, 5 beams": lambda: (limit.captions(beams=5), 64),
    "embedding photos": lambda: (limit.vision_tower(), 32),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three works, one round, no file")
    parser.add_argument("--work", choices=WORKS, help="one work alone, no file")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    precision = choose_accelerator().precision  # bfloat16 is timed if the processor computes it
    rows = []
    for name in [options.work] if options.work else QUICK if options.quick else WORKS:
        rounds, repetitions = (1, 1) if options.quick else ROUNDS.get(name, (2, 3))
        arms = [arm for arm in WORKS[name] if precision == "bf16" or not arm.endswith("bf16")]
        rows.append(measure(name, arms, rounds=rounds, repetitions=repetitions, threads=options.threads))
        print(line(rows[-1]), flush=True)
    if not (options.quick or options.work):
        record = {"machine": machine(options.threads), "works": rows}
        RESULTS.mkdir(exist_ok=True)
        write_text(RESULTS / "table.json", json.dumps(record, indent=1) + "\n")


def measure(name: str, arms: list[str], *, rounds: int, repetitions: int, threads: int) -> dict[str, Any]:
    """Time all arms of one work in turns, and the bare products of the last. A ratio above 1: faster than baseline."""
    runs = []
    for _ in range(rounds):
        runs.append({arm: in_a_process("arms", name, arm, repetitions, threads) for arm in arms})
        if name in LIMITS:
            products, items = LIMITS[name]()
            seconds = limit.seconds(products, PRECISIONS[OURS[arms[-1]]])
            runs[-1]["products"] = {"items": items, "seconds": [seconds / items]}
    goals = dict(zip(("fp32", "best", "memory"), GOALS[name], strict=True))
    ours = {arm: compare(name, arm, runs) for arm in arms[1:]}
    return {"work": name, "goals": goals, "ours": ours, "products": share_of_products(arms[-1], runs), "runs": runs}


def compare(name: str, arm: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare one of our arms with the baseline: speed with its spread, and memory."""
    ratios = [
        one / two
        for run in runs
        for one, two in zip(sorted(run["baseline"]["seconds"]), sorted(run[arm]["seconds"]), strict=True)
    ]
    kind = "grown_gb" if name.startswith("reading") else "peak_gb"  # of a cache, the memory that reading it adds
    return {
        "speed": statistics.median(ratios),
        "speed_spread": [min(ratios), max(ratios)],
        "memory": statistics.median(run[arm][kind] / run["baseline"][kind] for run in runs),
    }


def share_of_products(arm: str, runs: list[dict[str, Any]]) -> float | None:
    """Return the time of the bare products as a share of an arm's, by turn, because the machine's speed varies."""
    shares = [
        statistics.median(run["products"]["seconds"]) / statistics.median(run[arm]["seconds"])
        for run in runs
        if "products" in run
    ]
    return statistics.median(shares) if shares else None


def cells(row: dict[str, Any]) -> list[str]:
    """Return one row of the table as text."""
    texts, best = [row["work"]], list(row["ours"].values())[-1]
    for arm, goal in (("ours", "fp32"), ("ours, bf16", "best")):
        ours = row["ours"].get(arm)
        texts.append("{:.1f} [{:.1f}, {:.1f}]".format(ours["speed"], *ours["speed_spread"]) if ours else "")
        texts.append(f"{row['goals'][goal]:g}" if row["goals"][goal] else "")
    texts += [f"{best['memory']:.2f}", f"{row['goals']['memory']:g}" if row["goals"]["memory"] else ""]
    return [*texts, f"{row['products']:.0%}" if row["products"] else ""]


HEADER = ["work", "fp32", "goal", "bf16", "goal", "memory", "goal", "products"]


def line(row: dict[str, Any]) -> str:
    """Return a row of the table for the terminal."""
    return "; ".join(f"{name} {text}" for name, text in zip(HEADER, cells(row), strict=True) if text)


def as_markdown(works: list[dict[str, Any]]) -> str:
    """Return the table as README.md has it."""
    head, *rows = (f"| {' | '.join(row)} |" for row in (HEADER, *map(cells, works)))
    return "\n".join([head, "|---" * len(HEADER) + "|", *rows])


def machine(threads: int) -> dict[str, Any]:
    return {
        "cpu": cpu_name(),
        "threads": threads,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


if __name__ == "__main__":
    main()
