"""Write docs/results.md from the committed tables: `python docs/results.py`, part of `make docs`.

No figure of the page is typed. With a finished run (--run, as `make run` leaves it) its test scores are saved in
benchmarks/results/drawn-test.json first, which the page quotes.
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
from scipy import stats

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # this script runs from any folder

from results_text import (  # noqa: E402
    ARMS,
    DISSOLVED,
    EARLIER,
    INTRODUCTION,
    MEASURES,
    NOT_RUN,
    NOTES,
    PEOPLE,
    TEST_SCORES,
    THE_WORLD,
)

from helpers import answer, answered, effect_in_words, paired_effects  # noqa: E402
from helpers.data.scene_captions import scene_entropy  # noqa: E402
from helpers.experiments.questions import QUESTIONS, measure_of  # noqa: E402
from helpers.experiments.record import read_record  # noqa: E402

TABLES, MEASURED = ROOT / "notebooks" / "results", ROOT / "benchmarks" / "results"
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
        metrics = json.loads((options.run / "metrics.json").read_text("utf-8"))
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
        drawn_test(),
        "## The drawn world: one thing changed",
        THE_WORLD,
        *(section(name) for name in drawn),
        "### Time to quality",
        time_to_quality(),
        "## Photographs: the captioner that ships",
        photo_test(),
        "## Photographs: people, and things that are not there",
        people(),
        "## Photographs: one thing changed",
        "On Flickr8k, one epoch in place of twelve, judged by the validation photos.",
        *(section(name) for name in photos),
        "## Photographs: going on with photos of your own",
        own_photos(),
        "## What earlier versions said",
        earlier(questions),
        NOT_RUN,
    ]
    return "\n\n".join(map(_filled, "\n\n".join(parts).split("\n\n"))) + "\n"


def counted() -> str:
    """Return how many rows and how many trainings the tables have, and which trainings are in several."""
    said = []
    for folder, where in ((TABLES, "of the drawn world"), (TABLES / "photo", "of photos")):
        tables = [table for table in sorted(folder.glob("*.csv")) if "varied" in read_record(table)]  # by ablate
        trainings = [name for table in tables for name in read_record(table).get("trainings", {})]
        shared = sum(count > 1 for count in Counter(trainings).values())
        seconds: dict[str, float] = {}
        for table in tables:
            rows, names = pd.read_csv(table), list(read_record(table).get("trainings", {}))
            if "seconds" in rows and len(rows) == len(names):
                seconds |= dict(zip(names, rows.seconds, strict=True))
        said.append(
            f"The {len(tables)} tables {where} have {len(trainings)} arms and seeds from {len(set(trainings))} "
            f"trainings; {shared} of these are in several tables. The training steps took "
            f"{sum(seconds.values()) / 3600:.1f} hours, on one CPU thread each, often beside others."
        )
    return " ".join(said) + " The JSON beside each table names its trainings, versions and machine."


def section(name: str) -> str:
    """Return one question's table with its notes and its command."""
    question, effects = QUESTIONS[name], answer(name, TABLES)
    measure = MEASURES[measure_of(pd.read_csv(TABLES / f"{question.table}.csv"))]
    rows = [f"| {name.removeprefix('photos: ')} | mean | difference | p | seeds | |", "|---|---|---|---|---|---|"]
    for effect in effects.to_dict("records"):
        if effect["verdict"] == "base":
            difference, p = "", ""
        else:
            difference = f"{effect['difference']:+.3f} [{effect['low']:.3f}, {effect['high']:.3f}]"
            p = "< 0.001" if effect["p_holm"] < 0.001 else f"{effect['p_holm']:.3f}"
        cells = (_arm(effect[question.by]), f"{effect['mean']:.3f}", difference, p, effect["seeds"], effect["verdict"])
        rows.append(f"| {' | '.join(map(str, cells))} |")
    title = name.removeprefix("photos: ")
    tables = [question.table, *(table for _, table, _ in question.retuned if (TABLES / f"{table}.csv").exists())]
    parts = [
        f"### {title[0].upper()}{title[1:]}",
        f"Measure: {measure}. {NOTES.get(name, '')}".strip(),
        "\n".join(rows),
    ]
    return "\n\n".join([*parts, "```\n" + "\n".join(line for table in tables for line in commands(table)) + "\n```"])


def commands(table: str) -> list[str]:
    """Return the commands of a table; folders of photos are named as the Makefile does by default."""
    found = [call["command"] for call in read_record(TABLES / f"{table}.csv").get("calls", [])]
    return [re.sub(r"\S*/(flickr8k|flickr30k-captions)", r"data/\1", command) for command in found]


def drawn_test() -> str:
    """Return the test scores of the captioner of `make run`."""
    found = json.loads((MEASURED / "drawn-test.json").read_text("utf-8"))
    images = found["images"]
    for name in ("correct", "correct_shuffled"):
        interval = stats.binomtest(round(found[name] * images), images).proportion_ci(method="wilson")
        found[f"{name}_95_interval"] = [_rounded(interval.low), _rounded(interval.high)]
    rows = [f"| {label} | {_score(found, name)} |" for name, label in TEST_SCORES.items() if name in found]
    text = (f"{images} test pictures, one training (seed 0), with 95 % intervals over pictures. A scene of this world "
            f"holds {scene_entropy():.2f} nats of information.")  # fmt: skip
    if "defects of the original" in answered(TABLES):
        seeds = pd.read_csv(TABLES / "defect.csv").query("defect == 'none'").correct
        low, high = stats.t.interval(0.95, len(seeds) - 1, loc=seeds.mean(), scale=stats.sem(seeds))
        text += (f" How much trainings differ: over {len(seeds)} seeds of two epochs, {seeds.mean():.3f} "
                 f"[{low:.3f}, {high:.3f}] of the validation captions are right.")  # fmt: skip
    after = "On another CPU the figures differ a little, by rounding. [Scores](scores.md) explains the measures."
    bounds = math.log(math.e + VOCABULARY - 1)
    after += (f" The original's loss curve, from 10.78 to 10.33, is that of a doubled softmax: such a loss can only "
              f"move between {bounds - 1:.3f} and {bounds:.3f} (notebook 04).")  # fmt: skip
    return "\n\n".join([text, "\n".join(["| | |", "|---|---|", *rows]), after])


def time_to_quality() -> str:
    """Return the minutes of CPU time until 0.8 of the captions are right, per recipe, and their effects."""
    looks = pd.read_csv(TABLES / "quality.csv")
    last = looks.groupby(["recipe", "seed"], sort=False).last().reset_index()
    last["reached"] = last.correct >= 0.8
    rows = ["| recipe | seeds | reach 0.8 | minutes | last share right |", "|---|---|---|---|---|"]
    for recipe, runs in last.groupby("recipe", sort=False):
        minutes, correct = (f"{runs[name].min():.2f} to {runs[name].max():.2f}" for name in ("minutes", "correct"))
        rows.append(f"| {recipe} | {len(runs)} | {runs.reached.sum()} | {minutes} | {correct} |")
    always = last.groupby("recipe", sort=False).reached.transform("all")
    effects = paired_effects(last[always], "recipe", measure="minutes", base="ours")
    said = [f"- minutes of {row.recipe}: {effect_in_words(row)}" for _, row in effects.iloc[1:].iterrows()]
    most = read_record(TABLES / "quality.csv")["settings"]["most_minutes"]
    head = ("Minutes of one CPU thread in training steps until 0.8 of the validation captions are right, "
            f"{most:g} at most.")  # fmt: skip
    return "\n\n".join(
        [head, "\n".join(rows), *(["\n".join(said)] if said else []), "```\npython -m benchmarks.quality\n```"]
    )


def photo_test() -> str:
    """Return the test scores of the captioner in helpers/photo and of what needs no captioner."""
    found = json.loads((MEASURED / "photo-test.json").read_text("utf-8"))
    arms, runs = found["arms"], [name for name in found["arms"] if re.fullmatch(r"runs/photo/\d", name)]
    shown = {f"this captioner, {found['beams']} beams": runs[0], "greedy": f"{runs[0]}, greedy",
             "another photo's embedding": f"{runs[0]}, another photo",
             "the nearest training photo's caption": "nearest caption",
             "the most typical caption of the 40 nearest": "consensus of 40"}  # fmt: skip
    rows = ["| | CIDEr | BLEU-4 |", "|---|---|---|"]
    rows += [
        f"| {label} | {_score(arms[arm], 'cider')} | {_score(arms[arm], 'bleu_4')} |" for label, arm in shown.items()
    ]
    minus = [f"- minus {arm}: CIDEr {scores['cider']['difference']:+.3f} "
             f"[{scores['cider']['95_interval'][0]:.3f}, {scores['cider']['95_interval'][1]:.3f}]"
             for arm, scores in found["first run minus"].items()]  # fmt: skip
    spread = found["cider_over_runs"]
    half = stats.t.ppf(0.975, len(runs) - 1) * spread["std"] / len(runs) ** 0.5
    each = ", ".join(_score(arms[run], "cider", interval=False) for run in runs)
    over = (f"Over {len(runs)} trainings, CIDEr is {spread['mean']:.3f} [{spread['mean'] - half:.3f}, "
            f"{spread['mean'] + half:.3f}]: {each}. "
            "The first one ships; this did not decide it. [Real photos](real_photos.md) has the rest.")  # fmt: skip
    head = (f"{found['photos']} test photos of Flickr8k; 95 % intervals over photos; differences are paired by photo "
            "(`make photo`).")  # fmt: skip
    return "\n\n".join([head, "\n".join(rows), "\n".join(minus), over])


def people() -> str:
    """Return which people and objects captions of photos name wrongly, and what neutral words cost."""
    found = json.loads((TABLES / "people.json").read_text("utf-8"))
    rows = ["| share | first training, over photos | mean of the trainings, over trainings |", "|---|---|---|"]
    for name, label in PEOPLE.items():
        shares = found["trainings"][name]
        first, mean = ({"it": value, "it_95_interval": interval} for value, interval in
                       ((shares["of_each"][0], shares["first_over_pictures"]),
                        (shares["mean"], shares["over_trainings"])))  # fmt: skip
        rows.append(f"| {label} | {_score(first, 'it')} | {_score(mean, 'it')} |")
    cost, said = found["neutral"], []
    for arm, label in (("neutral", "references as people wrote them"),
                       ("neutral_by_neutral_references", "references in neutral words")):  # fmt: skip
        minus = cost[arm]["minus_as_written"]
        low, high = minus["95_interval"]
        said.append(f"- {label}: {cost[arm]['cider']:.3f}, a difference of {minus['difference']:+.3f} "
                    f"[{low:.3f}, {high:.3f}]")  # fmt: skip
    head = (f"{found['photos']} test photos of Flickr8k, greedy captions of three trainings; 95 % intervals "
            "([how it is counted](scores.md#people-and-things-that-are-not-there)).")  # fmt: skip
    neutral = (f"CIDEr of the first training's greedy captions of {cost['photos']} validation photos, "
               f"of which neutral words change {100 * cost['captions_reworded']:.0f} %: as written "
               f"{cost['as_written']['cider']:.3f}; in neutral words, against")  # fmt: skip
    return "\n\n".join([head, "\n".join(rows), neutral, "\n".join(said), "```\nmake people\n```"])


def own_photos() -> str:
    """Return what it brings to go on from the captioner that ships with photos of another collection."""
    rows = pd.read_csv(MEASURED / "own_photos.csv")
    rows["arm"] = [f"{number:,} photos" if number else arm for arm, number in zip(rows.arm, rows.photos, strict=True)]
    lines = ["| trained on | own photos: loss | CIDEr | words | Flickr8k: loss | CIDEr |", "|---|---|---|---|---|---|"]
    for arm, runs in rows.groupby("arm", sort=False):
        means = runs.groupby("judged_on")[["loss", "cider", "words"]].mean()
        cells = [f"{means[name][judged]:.3f}" for judged in ("own", "flickr8k") for name in ("loss", "cider", "words")]
        lines.append(f"| {arm} | {' | '.join(cells[:5])} |")
    said = []
    for measure, name in (("loss", "loss"), ("cider", "CIDEr")):
        effects = paired_effects(rows[rows.judged_on == "own"], "arm", measure=measure, base="as it ships")
        said += [f"- {name}, {row.arm}: {effect_in_words(row)}" for _, row in effects.iloc[1:].iterrows()]
    head = (f"Loss in nats per reference token; means and differences over {rows.seed.nunique()} orders of the photos "
            "([Your own photos](own_photos.md)).")  # fmt: skip
    return "\n\n".join([head, "\n".join(lines), "\n".join(said), "```\npython -m benchmarks.own_photos\n```"])


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
    return "\n".join([*lines, DISSOLVED])


def _filled(block: str) -> str:
    """Return a paragraph in lines of at most 125 characters; tables, lists, code and headings stay as they are."""
    return block if re.match(r"[|`#!-]", block) or "```" in block else textwrap.fill(block, 125, break_on_hyphens=False)


def _arm(value: Any) -> str:
    if str(value) in ARMS:
        return f"{ARMS[str(value)]} (`{value}`)"
    return f"{value:g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)


def _score(found: dict[str, Any], name: str, *, interval: bool = True) -> str:
    ends = found.get(f"{name}_95_interval") if interval else None
    return f"{found[name]:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
