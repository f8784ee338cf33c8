"""The table: every work as the baseline does it and as ours does, in turns; the ratio, its spread, and the goal.

`python -m benchmarks.run` (make bench) writes results/table.json; with `--quick`, fewer works and repetitions, nothing.
"""

import argparse
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks import limit
from benchmarks.arms import WORKS, in_a_process

RESULTS = Path(__file__).parent / "results"
GOALS = {  # times as fast as the baseline, share of its memory
    "training step, GPT-2 small": (2.2, 0.45),
    "training step, GPT-2 medium": (4.0, 0.5),
    "training step, ClipCap's": (15.0, None),
    "greedy captions": (20.0, None),
    "beam search, 5 beams": (30.0, None),
    "embedding photos": (4.5, None),
    "reading 10,000 of 100,000 rows": (50.0, 0.05),
}
ROUNDS = {  # how often both arms run, and how many repetitions of the work each time
    "training step, GPT-2 medium": (1, 1),
    "training step, ClipCap's": (1, 2),
    "greedy captions": (2, 2),
    "beam search, 5 beams": (1, 1),
    "embedding photos": (2, 2),
}
QUICK = ("greedy captions", "embedding photos", "reading 10,000 of 100,000 rows")
LIMITS = {  # bare matrix products of one item
    "training step, GPT-2 small": lambda: limit.seconds(limit.training_step("small")) / 64,
    "training step, GPT-2 medium": lambda: limit.seconds(limit.training_step("medium")) / 64,
    "greedy captions": lambda: limit.seconds(limit.captions()) / 64,
    "beam search, 5 beams": lambda: limit.seconds(limit.captions(beams=5)) / 64,
    "embedding photos": lambda: limit.seconds(limit.vision_tower()) / 32,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three works, one round, no file")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name in QUICK if options.quick else WORKS:
        rounds, repetitions = (1, 1) if options.quick else ROUNDS.get(name, (2, 3))
        rows.append(measure(name, rounds, repetitions, options.threads))
        print(line(rows[-1]), flush=True)
    if not options.quick:
        record = {"machine": machine(options.threads), "works": rows}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "table.json").write_text(json.dumps(record, indent=1) + "\n")


def measure(name: str, rounds: int, repetitions: int, threads: int) -> dict[str, Any]:
    """Both arms of one work in turns. Ratios are baseline to ours, so above 1 is faster and smaller."""
    runs = [
        {arm: in_a_process("arms", name, arm, repetitions, threads) for arm in ("baseline", "ours")}
        for _ in range(rounds)
    ]
    ratios = [
        one / two
        for run in runs
        for one, two in zip(sorted(run["baseline"]["seconds"]), sorted(run["ours"]["seconds"]), strict=True)
    ]
    kind = "grown_gb" if name.startswith("reading") else "peak_gb"  # of a cache, what reading it adds
    memory = [run["ours"][kind] / run["baseline"][kind] for run in runs]
    ours = statistics.median(second for run in runs for second in run["ours"]["seconds"])
    return {
        "work": name,
        "speed": statistics.median(ratios),
        "speed_spread": [min(ratios), max(ratios)],
        "memory": statistics.median(memory),
        "goal_speed": GOALS[name][0],
        "goal_memory": GOALS[name][1],
        "share_of_matrix_products": LIMITS[name]() / ours if name in LIMITS else None,
        "runs": runs,
    }


def line(row: dict[str, Any]) -> str:
    low, high = row["speed_spread"]
    text = f"{row['work']:<32}{row['speed']:>6.1f} x [{low:.1f}, {high:.1f}], goal {row['goal_speed']:<6}"
    text += f"memory {row['memory']:.2f}" + (f", goal {row['goal_memory']}" if row["goal_memory"] else "")
    share = row["share_of_matrix_products"]
    return text + (f"; its matrix products alone take {share:.0%} of its time" if share else "")


def as_markdown(works: list[dict[str, Any]]) -> str:
    """The table as README.md has it."""
    lines = ["| work | times as fast | goal | memory | goal | matrix products alone |", "|---|---|---|---|---|---|"]
    for row in works:
        (low, high), share = row["speed_spread"], row["share_of_matrix_products"]
        cells = [
            row["work"],
            f"{row['speed']:.1f} [{low:.1f}, {high:.1f}]",
            f"{row['goal_speed']:g}",
            f"{row['memory']:.2f}",
            f"{row['goal_memory']:g}" if row["goal_memory"] else "",
            f"{share:.0%}" if share else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def machine(threads: int) -> dict[str, Any]:
    model = [text for text in Path("/proc/cpuinfo").read_text().splitlines() if text.startswith("model name")]
    return {
        "cpu": model[0].split(": ")[1] if model else platform.processor(),
        "threads": threads,
        "precision": "fp32",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


if __name__ == "__main__":
    main()
