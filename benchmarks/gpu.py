"""All benchmarks of a card in one command of under 8 minutes: `python -m benchmarks.gpu` (make bench-gpu).

It needs PyTorch, transformers, accelerate and what they need, but no network, no data and no installation: the models
are random weights at real size, the captions have Flickr30k's lengths. Each section of gpu_sections.py runs in a
process of its own, the most important first; no section begins later than 7 minutes after the start. An error in one
is recorded, the others go on, and the exit status is 1. Results: gpu-CARD.json and gpu-CARD.md in benchmarks/results.
`--tiny` runs the sections of preset `small` with tiny models, in a minute on a CPU.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SECTIONS = {  # by name: a function of gpu_sections.py and the preset it measures
    "training step, small": ("training_step", "small"),
    "training step, large": ("training_step", "large"),
    "plan and truth, small": ("plan_and_truth", "small"),
    "cut and resumed, small": ("cut_and_resumed", "small"),
    "captions, small": ("captions", "small"),
    "photos, small": ("photos", "small"),
    "photos, large": ("photos", "large"),
    "captions, large": ("captions", "large"),
}
LAST_START, LAST_END = 420, 470  # seconds after the start: of the last section's begin, and until it is stopped
HEADER = ["work", "measure", "precision", "ours", "baseline", "ours / baseline"]


def run_section(name: str, work: Path, *, tiny: bool, seconds: float) -> dict[str, Any]:
    """Run one section in a process of its own; return its rows, the card, and the error if it ended with one."""
    result = work / "result.json"
    result.unlink(missing_ok=True)
    words = [sys.executable, "-m", "benchmarks.gpu", "--section", name, "--work", str(work), *["--tiny"] * tiny]
    quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}
    root = Path(__file__).parents[1]
    try:
        status = subprocess.run(words, check=False, timeout=seconds, env={**os.environ, **quiet}, cwd=root).returncode
        ending = f"the process ended with status {status}"
    except subprocess.TimeoutExpired:
        ending = f"stopped after {seconds:.0f} s, when the time for all sections was over"
    found = json.loads(result.read_text()) if result.exists() else {"rows": []}
    return found if "error" in found or found.get("done") else {**found, "error": ending}


def measure_section(name: str, work: Path, *, tiny: bool) -> int:
    """Measure one section in this process and save result.json after each row; return the exit status."""
    result: dict[str, Any] = {"rows": []}
    try:
        from benchmarks import gpu_sections

        function, preset = SECTIONS[name]
        result["card"] = gpu_sections.card()
        for row in getattr(gpu_sections, function)(preset, gpu_sections.TINY if tiny else gpu_sections.REAL, work):
            result["rows"].append(row)
            print("  " + "; ".join(filter(None, cells("", row)[1:])), flush=True)
            (work / "result.json").write_text(json.dumps(result))
        result["done"] = True
    except Exception as error:  # noqa: BLE001 (the table names it, and the other sections go on)
        traceback.print_exc()
        lines = str(error).strip().splitlines() or ["no message"]
        result["error"] = f"{type(error).__name__}: {lines[0][:300]}"
    (work / "result.json").write_text(json.dumps(result))
    return int("error" in result)


def run_all(work: Path, *, tiny: bool) -> dict[str, dict[str, Any]]:
    """Run the sections in their order and say what happens as it goes; return the result of each."""
    begun, results = time.monotonic(), {}
    for name in [each for each, (_, preset) in SECTIONS.items() if preset == "small" or not tiny]:
        passed = time.monotonic() - begun
        print(f"[{passed:3.0f} s] {name}", flush=True)
        if passed > LAST_START:
            results[name] = {"rows": [], "skipped": f"skipped: {LAST_START / 60:.0f} minutes were over"}
        else:
            results[name] = run_section(name, work, tiny=tiny, seconds=LAST_END - passed)
            results[name]["seconds"] = round(time.monotonic() - begun - passed, 1)
        for key in ("error", "skipped"):
            if key in results[name]:
                print(f"  {results[name][key]}", flush=True)
    print(f"[{time.monotonic() - begun:3.0f} s] done", flush=True)
    return results


def number(value: float | str | None) -> str:
    """Return three digits of a number, a text as it is, and nothing for None."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def cells(work: str, row: dict[str, Any]) -> list[str]:
    """Return one row of the table as text."""
    ratio = number(row.get("ratio"))
    if "spread" in row:
        ratio += " [{}, {}]".format(*map(number, row["spread"]))
    return [work, row["measure"], row.get("precision", ""), number(row["ours"]), number(row.get("baseline")), ratio]


def as_markdown(results: dict[str, dict[str, Any]]) -> str:
    """Return the table of all sections; an error or a skipped section has a line of its own."""
    lines = [HEADER, ["---"] * len(HEADER)]
    for name, result in results.items():
        lines += [cells(name, row) for row in result["rows"]]
        lines += [[name, f"**error**: {result['error']}", "", "", "", ""]] if "error" in result else []
        lines += [[name, result["skipped"], "", "", "", ""]] if "skipped" in result else []
    return "\n".join(f"| {' | '.join(text.replace('|', '/') for text in line)} |" for line in lines)


def main() -> int:
    """Measure everything, save JSON and table, print the table; return 1 if a section ended with an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small models, to try the code on a CPU")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--section", choices=SECTIONS, help="measure this section in this process, for --work")
    parser.add_argument("--work", type=Path, help="folder for the models and data of the sections")
    flags = parser.parse_args()
    if flags.section:
        return measure_section(flags.section, flags.work, tiny=flags.tiny)
    with tempfile.TemporaryDirectory() as work:
        results = run_all(Path(work), tiny=flags.tiny)
    card = next((result["card"] for result in results.values() if "card" in result), {"name": "no card"})
    for result in results.values():
        result.pop("card", None)
    slug = re.sub(r"[^a-z0-9]+", "-", card["name"].lower()).strip("-") + "-tiny" * flags.tiny
    flags.out.mkdir(parents=True, exist_ok=True)
    (flags.out / f"gpu-{slug}.json").write_text(json.dumps({"card": card, "sections": results}, indent=1) + "\n")
    words = ", ".join(f"{name} {value}" for name, value in card.items())
    table = f"{words}\n\n{as_markdown(results)}\n"
    (flags.out / f"gpu-{slug}.md").write_text(table)
    print(table)
    return int(any("error" in result for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
