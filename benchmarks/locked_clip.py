"""How well does a CLIP around a frozen encoder find photos by words? `python -m benchmarks.locked_clip DIR ...`.

DIR: what `clipxgpt pretrain --vision` left, one folder per seed. Their retrieval on validation and test photos is
joined: R@1 and R@10 by one caption among all photos of the split, the median rank, and what chance gives.
Results: --out.
"""

import argparse
import json
from pathlib import Path

from helpers.runtime.files import write_json

SPLITS = ("val", "test")


def main() -> None:
    """Join, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    reports = [json.loads((folder / "report.json").read_text("utf-8")) for folder in chosen.folders]
    found = {"folders": list(map(str, chosen.folders)), "seeds": [report["seed"] for report in reports],
             "cpu_seconds": [report["cpu_seconds"] for report in reports]}  # fmt: skip
    for split in SPLITS:
        found[split] = {name: [round(report[split][name], 4) for report in reports] for name in reports[0][split]}
        print(split, *(f"{name} {values}" for name, values in found[split].items()), sep="\n  ")
    write_json(chosen.out, found)


if __name__ == "__main__":
    main()
