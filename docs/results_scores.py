"""The sections of docs/results.md about captioners: their scores, what a picture tells them, what more they learn."""

import re
from statistics import fmean
from typing import Any

import pandas as pd
from results_cells import (
    MEASURED,
    TABLES,
    code,
    effects_list,
    first_and_mean,
    mean_of,
    read_json,
    score,
    score_of,
    table,
)
from results_text import BEST_BLIND, LANGUAGE_MODEL, NUMBERS, OWN_PHOTOS, PHOTO_TELLS, TELLS, TEST_SCORES
from scipy import stats

from helpers import effect_in_words, paired_effects, scene_entropy, wording_entropy


def wilson(share: float, number: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of so many pictures."""
    interval = stats.binomtest(round(share * number), number).proportion_ci(method="wilson")
    return interval.low, interval.high


def against_the_best_writer(nats_per_token: float, scores: dict[str, Any]) -> float:
    """Return what the picture tells, in nats per caption, against the best writer that there can be without a picture.

    That writer knows how often each scene and each wording is drawn, so a caption costs it their entropy.
    nats_per_token: what a token of the references costs the captioner. scores: those of trainings.json.
    """
    return scene_entropy() + wording_entropy() - nats_per_token * tokens_per_reference(scores)


def tokens_per_reference(scores: dict[str, Any]) -> float:
    """Return the mean number of tokens of the references that were scored."""
    return scores["picture_tells_per_caption"]["mean"] / scores["picture_tells_per_token"]["mean"]


def all_against_the_best_writer(scores: dict[str, Any]) -> list[float]:
    """Return `against_the_best_writer` of each training."""
    return [against_the_best_writer(nats, scores) for nats in scores["nats_per_token_true"]["of_each"]]


def drawn_test() -> str:
    """Return the test scores of the captioner of `make run` beside those of several trainings."""
    found, trainings = read_json(MEASURED / "drawn-test.json"), read_json(TABLES / "trainings.json")
    for name in ("correct", "correct_shuffled"):
        found[f"{name}_95_interval"] = wilson(found[name], found["images"])
    scores, number = trainings["scores"], NUMBERS[len(trainings["captioners"])]
    rows = [(label, score_of(found, name), first_and_mean(scores[name])[1]) for name, label in TEST_SCORES.items()]
    best, told = all_against_the_best_writer(scores), scores["picture_tells_per_caption"]["mean"]
    rows.append((BEST_BLIND, score(against_the_best_writer(found["nats_per_token_true"], scores), digits=2),
                 mean_of(best, digits=2)))  # fmt: skip
    head = (f"{found['images']} test pictures; {number} trainings, of which the first (seed 0) is that of `make run`. "
            "95 % intervals: over pictures for the first; over trainings for the mean, by Student's t, which is wide "
            f"for {number} and knows no highest score. A scene of this world holds {scene_entropy():.2f} nats of "
            "information.")  # fmt: skip
    shown = table(("", "first training, over pictures", f"mean of {number} trainings, over trainings"), rows)
    after = LANGUAGE_MODEL.format(told=told, best=fmean(best), more=told - fmean(best))
    return "\n\n".join([head, shown, after, code("make run", "make judges")])


def drawn_tells() -> str:
    """Return what the picture tells on the drawn world, against each writer that sees no picture."""
    trainings, blind = read_json(TABLES / "trainings.json"), read_json(TABLES / "blind.json")
    scores, number = trainings["scores"], NUMBERS[len(trainings["captioners"])]
    tokens, mean = tokens_per_reference(scores), {name: each["mean"] for name, each in scores.items()}
    mine, behind = f"{number} trainings", "one training with `--text-share 1`"
    seen, blind_seen = mean["nats_per_token_true"] * tokens, blind["nats_per_token_true"] * tokens
    rows = [
        ("the language model alone", mean["nats_per_token_language_model"] * tokens, mine, seen,
         first_and_mean(scores["picture_tells_per_caption"])[1], "trainings"),
        ("the captioner behind the mean embedding", blind["nats_per_token_mean"] * tokens, behind, blind_seen,
         score_of(blind, "picture_tells_per_caption"), "pictures"),
        ("the best writer that there can be", scene_entropy() + wording_entropy(), mine, seen,
         mean_of(all_against_the_best_writer(scores)), "trainings"),
    ]  # fmt: skip
    shown = table(("without a picture", "it needs", "captioner", "it needs", "the picture tells", "interval over"),
                  [[score(cell) if isinstance(cell, float) else cell for cell in cells] for cells in rows])  # fmt: skip
    head = TELLS.format(pictures=blind["images"])
    return "\n\n".join([head, shown, code("make judges")])


def photo_tells() -> str:
    """Return what the photo tells the captioner of photos, and its greedy scores, over trainings."""
    found = read_json(TABLES / "trainings-photo.json")
    number = NUMBERS[len(found["captioners"])]
    rows = [(label, *first_and_mean(found["scores"][name])) for name, label in PHOTO_TELLS.items()]
    head = (f"The test photos; {number} trainings, against the captioner behind the mean embedding, where it learned "
            "captions without a photo. 95 % intervals: over photos for the first training, over trainings for the mean "
            "(Student's t).")  # fmt: skip
    shown = table(("", "first training, over photos", f"mean of {number} trainings, over trainings"), rows)
    return "\n\n".join([head, shown, code("make judges")])


def photo_test() -> str:
    """Return the test scores of the captioner in helpers/photo and of what needs no captioner."""
    found = read_json(MEASURED / "photo-test.json")
    arms, runs = found["arms"], [name for name in found["arms"] if re.fullmatch(r"runs/photo/\d", name)]
    shown = {f"this captioner, {found['beams']} beams": runs[0], "greedy": f"{runs[0]}, greedy",
             "another photo's embedding": f"{runs[0]}, another photo",
             "the nearest training photo's caption": "nearest caption",
             "the most typical caption of the 40 nearest": "consensus of 40"}  # fmt: skip
    rows = [(label, score_of(arms[arm], "cider"), score_of(arms[arm], "bleu_4")) for label, arm in shown.items()]
    minus = [f"- minus {arm}: CIDEr {scores['cider']['difference']:+.3f} "
             f"[{scores['cider']['95_interval'][0]:.3f}, {scores['cider']['95_interval'][1]:.3f}]"
             for arm, scores in found["first run minus"].items()]  # fmt: skip
    spread = found["cider_over_runs"]
    half = stats.t.ppf(0.975, len(runs) - 1) * spread["std"] / len(runs) ** 0.5
    each = ", ".join(score(arms[run]["cider"]) for run in runs)
    over = (f"Over {len(runs)} trainings, CIDEr is {spread['mean']:.3f} [{spread['mean'] - half:.3f}, "
            f"{spread['mean'] + half:.3f}]: {each}. "
            "The first one ships; this did not decide it. [Real photos](real_photos.md) has the rest.")  # fmt: skip
    head = (f"{found['photos']} test photos of Flickr8k; 95 % intervals over photos; differences are paired by photo "
            "(`make photo`).")  # fmt: skip
    return "\n\n".join([head, table(("", "CIDEr", "BLEU-4"), rows), "\n".join(minus), over])


def own_photos() -> str:
    """Return what it brings to go on from the captioner that ships with photos of another collection."""
    rows = pd.read_csv(MEASURED / "own_photos.csv")
    rows["arm"] = [f"{number:,} photos" if number else arm for arm, number in zip(rows.arm, rows.photos, strict=True)]
    lines = []
    for arm, runs in rows.groupby("arm", sort=False):
        means = runs.groupby("judged_on")[["loss", "cider", "words"]].mean()
        cells = [f"{means[name][judged]:.3f}" for judged in ("own", "flickr8k") for name in ("loss", "cider", "words")]
        lines.append((arm, *cells[:5]))
    said = []
    for judged, measure, title in OWN_PHOTOS:
        effects = paired_effects(rows[rows.judged_on == judged], "arm", measure=measure, base="as it ships")
        said += [f"{title}, against {effect_in_words(effects.iloc[0])} as it ships:", effects_list(effects)]
    head = ("118 held-out photos of Flickr30k's sample, whose captions GPT-2 has not read. Loss in nats per reference "
            f"token; means and differences over {rows.seed.nunique()} orders of the photos; "
            "p is corrected by Holm within each list ([Your own photos](own_photos.md)).")  # fmt: skip
    shown = table(("trained on", "own photos: loss", "CIDEr", "words", "Flickr8k: loss", "CIDEr"), lines)
    return "\n\n".join([head, shown, *said, code("python -m benchmarks.own_photos --shared DIR")])
