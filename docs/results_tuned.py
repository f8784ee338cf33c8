"""Arms of docs/results.md that are at their own best value of a setting: which, of what was tried, and at what end."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from results_cells import TABLES, arms_in_words
from results_text import ONE_RATE, OTHERS_RATE, RATES_MATTER, TUNED, TUNED_ALONE

from helpers.experiments.questions import Question, measure_of
from helpers.experiments.significance import best_of


@dataclass(frozen=True)
class TunedArm:
    """An arm at its own best value of a column.

    tried: the values, from the lowest. mean: of the measure at the best. flat: whether each value gives that mean.
    """

    name: str
    column: str
    tried: tuple[float, ...]
    best: float
    mean: float
    flat: bool

    @property
    def edge(self) -> str:
        """Say if the best is the "lowest" or the "highest" value tried; "" if it is neither, or if all are alike."""
        ends = {self.tried[0]: "lowest", self.tried[-1]: "highest"}
        return "" if self.flat else ends.get(self.best, "")


def tuned_arms(question: Question, folder: Path = TABLES) -> list[TunedArm]:
    """Return the arms of a question that are at their own best value of another column, with what was tried."""
    tried = [(arm, table, column) for arm, table, column in question.retuned if (folder / f"{table}.csv").exists()]
    found = [_tuned(arm, pd.read_csv(folder / f"{table}.csv"), column) for arm, table, column in tried]
    if question.tuned:
        rows = pd.read_csv(folder / f"{question.table}.csv")
        found += [_tuned(str(arm), each, question.tuned) for arm, each in rows.groupby(question.by, sort=False)]
    return found


def _tuned(name: str, rows: pd.DataFrame, column: str) -> TunedArm:
    by = measure_of(rows)
    means = rows.groupby(column)[by].mean()
    best = best_of(rows.assign(arm=name), "arm", column, measure=by)[column].iloc[0]
    return TunedArm(name, column, tuple(means.index), best, means[best], flat=means.round(3).nunique() == 1)


def rates_in_words(name: str, tuned: Sequence[TunedArm], arms: Sequence[str]) -> str:
    """Return which of a question's arms are at a value of their own, and that one rate for all may not suit all."""
    if not tuned:
        return ONE_RATE if name in RATES_MATTER else ""
    chosen = [arm for arm in tuned if not arm.flat]
    said = []
    if chosen:
        words = TUNED if len(chosen) > 1 else TUNED_ALONE
        said.append(words.format(arms=arms_in_words([arm.name for arm in chosen]), what=_named(chosen[0].column)))
    if set(arms) - {arm.name for arm in tuned}:
        said.append(OTHERS_RATE)
    return " ".join(said)


def edges_in_words(tuned: Sequence[TunedArm]) -> list[str]:
    """Return which arms were best at an end of what was tried, and which were alike at every value; maybe nothing."""
    said = []
    for edge, further in (("lowest", "lower"), ("highest", "higher")):
        if best := [arm for arm in tuned if arm.edge == edge]:
            were, them = ("were", "them") if len(best) > 1 else ("was", "it")
            names, what = arms_in_words([arm.name for arm in best]), _named(best[0].column)
            said.append(f"{names} {were} best at the {edge} {what} tried, so a {further} one may suit {them} more.")
    for arm in (arm for arm in tuned if arm.flat):
        values = ", ".join(f"{value:g}" for value in arm.tried)
        said.append(f"`{arm.name}` comes to {arm.mean:.3f} at every {_named(arm.column)} tried ({values}).")
    return [" ".join(said)] if said else []


def _named(column: str) -> str:
    return "learning rate" if column.endswith("_lr") else column.replace("_", " ")
