"""The sections of docs/results.md that compare settings: one for each question, and time to quality."""

from collections.abc import Sequence

import pandas as pd
from results_cells import (
    ROOT,
    TABLES,
    arm_in_words,
    code,
    effects_list,
    mean_of,
    p_in_words,
    public,
    read_json,
    score,
    table,
)
from results_text import LOSS_TOO, MEASURES, NOTES, OVER, PRETRAINED, SMALL_RATE
from results_tuned import TunedArm, edges_in_words, rates_in_words, tuned_arms

from helpers import answer, effect_in_words, paired_effects
from helpers.experiments.questions import QUESTIONS, Question, measure_of
from helpers.experiments.record import read_record


def section(name: str) -> str:
    """Return one question's table with its notes and its commands."""
    question, title, effects = QUESTIONS[name], name.removeprefix("photos: "), answer(name, TABLES)
    tuned, arms = tuned_arms(question), [str(arm).split(", ")[0] for arm in effects[question.by]]
    tables = [question.table, *(file for _, file, _ in question.retuned if (TABLES / f"{file}.csv").exists())]
    notes = NOTES.get(name, "").format(pretrained=pretrained())
    parts = [
        f"### {title[0].upper()}{title[1:]}",
        " ".join(filter(None, [f"Measure: {measure(question.table)}.", notes, rates_in_words(name, tuned, arms)])),
        effects_table(effects, question.by, title, tuned),
        *edges_in_words(tuned),
        *([loss_too(question)] if name in LOSS_TOO else []),
        code(*(line for each in tables for line in commands(each))),
    ]
    return "\n\n".join(parts)


def measure(name: str) -> str:
    """Return by what the arms of a table are compared, in words."""
    return MEASURES[measure_of(pd.read_csv(TABLES / f"{name}.csv"))]


def pretrained() -> str:
    """Return what the small CLIP and GPT-2 were pretrained on, in words."""
    return PRETRAINED.format(**read_json(ROOT / "helpers" / "tiny" / "report.json"))


def effects_table(effects: pd.DataFrame, by: str, title: str, tuned: Sequence[TunedArm] = ()) -> str:
    """Return effects as a table; an arm to which every value tried gave the same is not named by one of them."""
    flat = {arm.name: f"{arm.name}, at each {arm.column} tried" for arm in tuned if arm.flat}
    rows = []
    for effect in effects.to_dict("records"):
        shown = effect["verdict"] != "base"
        difference = f"{effect['difference']:+.3f} [{effect['low']:.3f}, {effect['high']:.3f}]" if shown else ""
        p = p_in_words(effect["p_holm"]) if shown else ""
        arm = flat.get(str(effect[by]).split(", ")[0]) or arm_in_words(effect[by])
        rows.append((arm, f"{effect['mean']:.3f}", difference, p, effect["seeds"], effect["verdict"]))
    return table((title, "mean", "difference", "p", "seeds", ""), rows)


def commands(name: str) -> list[str]:
    """Return the commands that made a table."""
    return [public(call["command"]) for call in read_record(TABLES / f"{name}.csv").get("calls", [])]


def loss_too(question: Question) -> str:
    """Return the effects on the validation loss as a list: CIDEr does not show all that training photos change."""
    rows = pd.read_csv(TABLES / f"{question.table}.csv")
    effects = paired_effects(rows, question.by, measure="val_loss", base=question.base)
    head = (f"Validation loss in nats per token, against {effect_in_words(effects.iloc[0])} with "
            f"{arm_in_words(question.base)}; p is corrected within this list:")  # fmt: skip
    return "\n\n".join([head, effects_list(effects)])


def time_to_quality() -> str:
    """Return the minutes of CPU time until 0.8 of the captions are right, per recipe, and their effects."""
    looks = pd.read_csv(TABLES / "quality.csv")
    last = looks.groupby(["recipe", "seed"], sort=False).last().reset_index()
    last["reached"] = last.correct >= 0.8
    rows = []
    for recipe, runs in last.groupby("recipe", sort=False):
        minutes, correct = (f"{runs[name].min():.2f} to {runs[name].max():.2f}" for name in ("minutes", "correct"))
        rows.append((recipe, len(runs), runs.reached.sum(), minutes, correct))
    always = last.groupby("recipe", sort=False).reached.transform("all")
    effects = paired_effects(last[always], "recipe", measure="minutes", base="ours")
    most = read_record(TABLES / "quality.csv")["settings"]["most_minutes"]
    head = ("Minutes of one CPU thread in training steps until 0.8 of the validation captions are right, "
            f"{most:g} at most.")  # fmt: skip
    shown = table(("recipe", "seeds", "reach 0.8", "minutes", "last share right"), rows)
    parts = ["### Time to quality", head, shown, effects_list(effects, "minutes of "), code(*commands("quality"))]
    return "\n\n".join(filter(None, parts))


def steps_at_a_small_rate() -> str:
    """Return the share of right captions against the steps at 9e-6, for each seed, and their mean."""
    file = TABLES / "steps_at_9e-6.csv"
    looks, arms = pd.read_csv(file), ["mapper_lr", "gpt2_lr", "seed"]
    shown = looks[(looks.mapper_lr == 9e-6) & (looks.gpt2_lr == 9e-6) & (looks.steps >= 750)]
    right = shown.pivot(index="steps", columns="seed", values="correct")
    minutes = looks.groupby(arms).cpu_minutes.max()
    several = right.shape[1] > 2
    head = SMALL_RATE.format(seeds=right.shape[1], trainings=len(minutes), minutes=minutes.sum(), so=OVER[several])
    columns = ("steps", *(f"seed {seed}" for seed in right), *(["mean"] if several else []))
    rows = [(f"{steps:,}", *map(score, shares), *([mean_of(shares)] if several else []))
            for steps, *shares in right.itertuples()]  # fmt: skip
    said = commands("steps_at_9e-6") or [read_json(file.with_suffix(".json"))["command"]]
    return "\n\n".join(["### Steps at 9e-6", head, table(columns, rows), code(*said)])
