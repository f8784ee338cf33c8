"""The sections of docs/results.md about trust: invented things, judges, probes, confidence, unlike pictures."""

from collections import Counter
from typing import Any

from results_cells import MEASURED, TABLES, code, first_and_mean, p_in_words, public, read_json, score, table
from results_scores import wilson
from results_text import (
    CALIBRATED,
    FAMILIAR,
    HOLM_OF_JUDGES,
    JUDGES,
    NUMBERS,
    PEOPLE,
    PROBE,
    PROBED,
    SURE,
    TASTE,
    UNLIKE,
)


def people() -> str:
    """Return which people and objects captions of photos name wrongly, and what neutral words cost."""
    found = read_json(TABLES / "people.json")
    rows = [(label, *first_and_mean(found["trainings"][name])) for name, label in PEOPLE.items()]
    cost, said = found["neutral"], []
    for arm, label in (("neutral", "references as people wrote them"),
                       ("neutral_by_neutral_references", "references in neutral words")):  # fmt: skip
        minus = cost[arm]["minus_as_written"]
        low, high = minus["95_interval"]
        said.append(f"- {label}: {cost[arm]['cider']:.3f}, a difference of {minus['difference']:+.3f} "
                    f"[{low:.3f}, {high:.3f}]")  # fmt: skip
    number = NUMBERS[len(found["trainings"]["people_missed"]["of_each"])]
    head = (f"{found['photos']} test photos of Flickr8k, greedy captions of {number} trainings; 95 % intervals "
            "([how it is counted](scores.md#people-and-things-that-are-not-there)).")  # fmt: skip
    neutral = (f"CIDEr of the first training's greedy captions of {cost['photos']} validation photos, "
               f"of which neutral words change {100 * cost['captions_reworded']:.0f} %: as written "
               f"{cost['as_written']['cider']:.3f}; in neutral words, against")  # fmt: skip
    shown = table(("share", "first training, over photos", "mean of the trainings, over trainings"), rows)
    return "\n\n".join([head, shown, neutral, "\n".join(said), code("make people")])


def judges(world: str) -> str:
    """Return how often own and other judges prefer captions to references, on the drawn world or on photos."""
    found = read_json(TABLES / f"judges-{world}.json")
    views = [(group.split()[-1], which, view) for group, every in found["captions"].items()
             for which, view in (("all", every), ("false", every.get("wrong_captions"))) if view]  # fmt: skip
    corrected = any("p_holm" in view["own_minus_other"] for *_, view in views)
    head = JUDGES.format(
        pictures=found["pictures"],
        captioners=_by_eyes(found["table"], "run", "eyes"),
        judges=_by_eyes(found["table"], "judge", "judges_eyes"),
        holm=HOLM_OF_JUDGES[corrected],
        taste=TASTE["of captioners that see by either" in found["captions"]],
    )
    columns = ["captioners see by", "captions", "own judges", "others", "own minus others", "p", ""]
    rows = [judged(*view) for view in views]
    if not corrected:
        columns, *rows = ([*cells[:5], *cells[6:]] for cells in (columns, *rows))
    return "\n\n".join([head, table(columns, rows), code(public(found["command"]))])


def judged(eyes: str, which: str, view: dict[str, Any]) -> list[str]:
    """Return a row of the table of judges: the captions, who prefers them how often, the difference, its verdict."""
    minus = view["own_minus_other"]
    low, high = minus["95_interval"]
    return [
        eyes,
        f"{which}, {view['captions']}" if "captions" in view else which,
        *(score(view[side]["preferred"], view[side]["95_interval"]) for side in ("own", "other")),
        f"{minus['difference']:+.3f} [{low:.3f}, {high:.3f}]",
        p_in_words(minus["p_holm"]) if "p_holm" in minus else "",
        minus["verdict"],
    ]


def _by_eyes(rows: list[dict[str, Any]], one: str, eyes: str) -> str:
    """Return how many see by each image encoder: "3 by `tiny`, 1 by `second`"."""
    counts = Counter({row[one]: row[eyes] for row in rows}.values())
    return ", ".join(f"{number} by `{name}`" for name, number in counts.items())


def probing() -> str:
    """Return in how many pictures a linear probe reads all facts right, by what it reads."""
    found = read_json(TABLES / "probing.json")
    pictures, right = found["pictures"], found["right"]
    rows = [(label, ", ".join(score(share) for share in right[name]["all"])) for name, label in PROBED.items()]
    facts = len(right["raw pixels"]) - 1
    head = PROBE.format(fitted=pictures["probe fitted on"], read=pictures["read"], facts=facts)
    return "\n\n".join([head, table(("what is read", "all facts"), rows), code(found["command"])])


def calibration() -> str:
    """Return how far the captioner of photos is from being as often right as it is sure."""
    found, rows = read_json(TABLES / "calibration.json"), []
    for name, label in CALIBRATED.items():
        curve = {column: values[-1] for column, values in found["curves"][name]["curve"].items()}
        errors = ", ".join(score(error) for error in found["curves"][name]["ece"])
        rows.append((label, errors, score(curve["confidence"]), score(curve["right"], (curve["low"], curve["high"]))))
    number = NUMBERS[len(found["curves"]["own words"]["ece"])]
    head = SURE.format(data=found["data"], trainings=number)
    shown = table(("", "calibration error of each training", "how sure", "how often right"), rows)
    return "\n\n".join([head, shown, code(public(found["command"]))])


def familiarity() -> str:
    """Return which pictures are called unlike the training: false alarms, and pictures of other kinds."""
    rows = []
    for captioner, kinds in read_json(MEASURED / "familiarity.json").items():
        for kind, found in kinds.items():
            share = score(found["unlike"], wilson(found["unlike"], found["pictures"]))
            known = score(found["auroc"]) if "auroc" in found else "false alarms"
            rows.append((FAMILIAR[captioner], f"{found['pictures']} {FAMILIAR.get(kind, kind)}", share, known))
    shown = table(("captioner", "pictures", "called unlike the training", "AUROC"), rows)
    return "\n\n".join([UNLIKE, shown, code("python -m benchmarks.familiarity --photos Images --names splits.csv")])
