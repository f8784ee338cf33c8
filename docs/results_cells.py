"""What docs/results.md is written with: the folders of the tables, scores as text, Markdown tables, commands."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from results_text import ARMS
from scipy import stats

from helpers import effect_in_words

ROOT = Path(__file__).parents[1]
TABLES, MEASURED = ROOT / "notebooks" / "results", ROOT / "benchmarks" / "results"


def read_json(file: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(file.read_text("utf-8"))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    first, *others = (f"| {' | '.join(map(str, cells))} |" for cells in (head, *rows))
    return "\n".join([first, "|---" * len(head) + "|", *others])


def code(*lines: str) -> str:
    """Return lines as a block of code."""
    return "\n".join(["```", *lines, "```"])


def public(command: str) -> str:
    """Return a command with its folders of photos named as the Makefile names them by default."""
    return re.sub(r"\S*/(flickr8k|flickr30k-captions)", r"data/\1", command)


def score(value: float, interval: Sequence[float] | None = None, digits: int = 3) -> str:
    """Return a score as text: "0.585 [0.529, 0.644]". An interval without a width says nothing and is left out."""
    low, high = interval or (value, value)
    return f"{value:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if low < high else "")


def mean_of(values: Sequence[float], digits: int = 3) -> str:
    """Return the mean of several trainings as text, with its 95 % interval over trainings by Student's t."""
    mean = sum(values) / len(values)
    return score(mean, stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values)), digits)


def score_of(found: dict[str, Any], name: str) -> str:
    """Return a score that lies in a JSON file beside its interval, as text."""
    return score(found[name], found.get(f"{name}_95_interval"))


def first_and_mean(found: dict[str, Any]) -> tuple[str, str]:
    """Return a score of several trainings as two texts: of the first one, over pictures, and of all, over trainings."""
    first = score(found["of_each"][0], found.get("first_over_pictures"))
    return first, score(found["mean"], found["over_trainings"])


def effects_list(effects: pd.DataFrame, name: str = "") -> str:
    """Return the effects of all arms but the base as a list; name: what stands before each arm."""
    said = (f"- {name}{arm_in_words(row.iloc[0])}: {effect_in_words(row)}" for _, row in effects.iloc[1:].iterrows())
    return "\n".join(said)


def arm_in_words(value: Any) -> str:
    """Return the value of an arm as the page names it."""
    if str(value) in ARMS:
        return f"{ARMS[str(value)]} (`{value}`)"
    return f"{value:g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)


def p_in_words(p: float) -> str:
    """Return a p value as text."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def arms_in_words(names: Sequence[str]) -> str:
    """Return names as text: "`encoder`, `mlp` and `queries`"."""
    quoted = [f"`{name}`" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
