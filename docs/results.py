"""Write docs/results.md from the committed tables: `python docs/results.py`, part of `make docs`.

No figure of the page is typed. With a finished run (--run, as `make run` leaves it) its test scores are saved in
benchmarks/results/drawn-test.json first, which the page quotes. Its sections are in results_scores.py,
results_trust.py and results_tables.py, its words in results_text.py.
"""

import argparse
import json
import math
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))  # this script runs from any folder

from results_cells import MEASURED, ROOT, TABLES, read_json
from results_scores import drawn_tells, drawn_test, own_photos, photo_tells, photo_test
from results_tables import pretrained, section, steps_at_a_small_rate, time_to_quality
from results_text import BOUNDS, EARLIER, INTRODUCTION, NOT_COUNTED, NOT_RUN, THE_WORLD, WITHDRAWN
from results_trust import calibration, familiarity, judges, people, probing

from helpers import answer, answered, effect_in_words
from helpers.experiments.record import read_record

SECONDS = {"seconds": 1, "minutes": 60, "cpu_minutes": 60}  # by the column of a table that has them
VOCABULARY = 50_257  # of GPT-2, for the bounds of a doubled softmax


def main(arguments: Sequence[str] | None = None) -> None:
    """Save the scores of --run, if it is there, and write the page into --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_suffix(".md"), help="the page (docs/results.md)"
    )
    parser.add_argument("--run", type=Path, default=ROOT / "runs/tiny", help="a finished run (runs/tiny)")
    options = parser.parse_args(arguments)
    if (options.run / "metrics.json").exists():
        metrics = read_json(options.run / "metrics.json")
        scores = {name: _rounded(value) for name, value in metrics.items() if isinstance(value, int | float | list)}
        (MEASURED / "drawn-test.json").write_text(json.dumps(scores, indent=1) + "\n", "utf-8")
    options.out.write_text(page(), "utf-8")
    print(f"wrote {options.out}")


def page() -> str:
    """Return the page as Markdown."""
    questions = answered(TABLES)
    drawn, photos = ([name for name in questions if name.startswith("photos: ") == wanted] for wanted in (False, True))
    parts = [
        INTRODUCTION,
        counted(),
        "## The drawn world: the captioner of `make run`",
        THE_WORLD.format(pretrained=pretrained()),
        drawn_test(),
        bounds(),
        "## The drawn world: what the picture tells",
        drawn_tells(),
        "## The drawn world: one thing changed",
        *(section(name) for name in drawn),
        time_to_quality(),
        steps_at_a_small_rate(),
        "## The drawn world: what an embedding owes to whom",
        probing(),
        "## The drawn world: judges",
        judges("drawn"),
        "## Photographs: the captioner that ships",
        photo_test(),
        "## Photographs: what the photo tells",
        photo_tells(),
        "## Photographs: people, and things that are not there",
        people(),
        "## Photographs: as often right as it is sure?",
        calibration(),
        "## Photographs: judges",
        judges("photo"),
        "## Photographs: one thing changed",
        "On Flickr8k, one epoch in place of twelve, judged by the validation photos.",
        *(section(name) for name in photos),
        "## Photographs: going on with photos of your own",
        own_photos(),
        "## Both: pictures unlike the training",
        familiarity(),
        "## What earlier versions said",
        earlier(questions),
        NOT_RUN,
    ]
    return "\n\n".join(map(_filled, "\n\n".join(parts).split("\n\n"))) + "\n"


def counted() -> str:
    """Return how many rows and how many trainings the tables have, and which trainings are in several."""
    said = []
    for folder, where in ((TABLES, "of the drawn world"), (TABLES / "photo", "of photos")):
        tables = [table for table in sorted(folder.glob("*.csv")) if "varied" in read_record(table)]
        times = Counter(name for table in tables for name in read_record(table)["trainings"])
        seconds = {name: spent for table in tables for name, spent in seconds_of(table).items()}
        said.append(
            f"The {len(tables)} tables {where} have {times.total()} arms and seeds from {len(times)} trainings; "
            f"{sum(count > 1 for count in times.values())} of these are in several tables. The training steps took "
            f"{sum(seconds.values()) / 3600:.1f} hours, on one CPU thread each, often beside others."
        )
    return " ".join([*said, NOT_COUNTED])


def seconds_of(table: Path) -> dict[str, float]:
    """Return the seconds of each training of a table, by its name in the record."""
    rows, record = pd.read_csv(table, dtype=str), read_record(table)
    columns = [*record["varied"], "seed"]
    last = rows.groupby(columns, sort=False).last().reset_index()  # of a row per look, with the minutes so far
    spent, unit = next((last[name], unit) for name, unit in SECONDS.items() if name in last)
    words = [", ".join(f"{column} {row[column]}" for column in columns) for row in last.to_dict("records")]
    seconds = dict(zip(words, spent.astype(float) * unit, strict=True))
    return {name: seconds[what] for name, what in record["trainings"].items()}


def bounds() -> str:
    """Return what is said below the drawn world's scores: of other machines, and of the original's loss."""
    highest = math.log(math.e + VOCABULARY - 1)
    return BOUNDS.format(lowest=highest - 1, highest=highest)


def earlier(questions: list[str]) -> str:
    """Return what earlier versions claimed from three seeds, each with what the tables say now."""
    lines = []
    for claim, name, arm, verdict in EARLIER:
        effects = answer(name, TABLES) if name in questions else pd.DataFrame()
        arms = {str(row.iloc[0]).split(",")[0]: row for _, row in effects.iterrows()}
        if arm not in arms:
            continue
        effect = arms[arm]
        stands = "this stands" if effect.verdict == verdict else "this is not shown"
        lines.append(f"- “{claim[0].upper()}{claim[1:]}”: {stands} ({effect_in_words(effect)}).")
    return "\n".join([*lines, WITHDRAWN])


def _filled(block: str) -> str:
    """Return a paragraph in lines of at most 125 characters; tables, lists, code and headings stay as they are."""
    return block if re.match(r"[|#!-]", block) or "```" in block else textwrap.fill(block, 125, break_on_hyphens=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
