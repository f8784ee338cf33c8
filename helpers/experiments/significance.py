"""Comparisons within a results table of several seeds: effects against a base, paired by seed, with intervals."""

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.05  # p_holm below which a difference counts as shown
LOWER_IS_BETTER = ("val_loss",)


def paired_effects(results: pd.DataFrame, by: str, *, measure: str, base: object) -> pd.DataFrame:
    """Return what each value of `by` changes against `base`, paired by seed: one row per value, the base's first.

    Columns: the value, mean, difference (the mean over the seeds that both have), low and high (its 95 % interval by
    Student's t, two-sided), p, p_holm (p corrected by Holm for all comparisons of the table), seeds, verdict: "base",
    "higher" or "lower" if p_holm is below LEVEL, else "no difference shown". A difference from one seed has neither
    interval nor p. Raises ValueError if no row has the base, or if a value and a seed have several rows.
    """
    if results.duplicated([by, "seed"]).any():
        raise ValueError(f"several rows have the same {by} and seed: choose among them first, as best_of does")
    arms = {value: rows.set_index("seed")[measure] for value, rows in results.groupby(by, sort=False)}
    if base not in arms:
        raise ValueError(f"no row has {by} {base!r}")
    rows = [{by: base, "mean": arms[base].mean(), "difference": 0.0, "seeds": len(arms[base])}]
    for value in (value for value in arms if value != base):
        differences = (arms[value] - arms[base]).dropna()
        rows.append({by: value, "mean": arms[value].mean(), "difference": differences.mean(),
                     **_interval(differences.to_numpy()), "seeds": len(differences)})  # fmt: skip
    table = pd.DataFrame(rows, columns=[by, "mean", "difference", "low", "high", "p", "seeds"])
    table.insert(6, "p_holm", holm(table.p))
    higher = table.difference.gt(0).map({True: "higher", False: "lower"})
    return table.assign(verdict=["base", *higher.where(table.p_holm < LEVEL, "no difference shown")[1:]])


def best_of(results: pd.DataFrame, by: str, tuned: str, *, measure: str) -> pd.DataFrame:
    """Return, for each value of `by`, the rows with the value of `tuned` whose mean `measure` is best.

    The choice uses the runs that are then compared, so the best mean is a little too good; with as many values tried
    for each value of `by`, it is so for all of them.
    """
    means = results.groupby([by, tuned], sort=False)[measure].mean()
    if measure in LOWER_IS_BETTER:
        means = -means
    best = {(value, means.loc[value].idxmax()) for value in results[by].unique()}
    return results[[pair in best for pair in zip(results[by], results[tuned], strict=True)]]


def effect_in_words(effect: pd.Series, digits: int = 3) -> str:
    """Return a row of `paired_effects` as text: "0.932, higher: +0.277 [0.120, 0.434]"; the base is its mean alone."""
    mean = f"{effect['mean']:.{digits}f}"
    if effect.verdict == "base":
        return mean
    interval = f" [{effect.low:.{digits}f}, {effect.high:.{digits}f}]" if effect.seeds > 1 else ""
    return f"{mean}, {effect.verdict}: {effect.difference:+.{digits}f}{interval}"


def effects_in_words(effects: pd.DataFrame, digits: int = 3) -> str:
    """Return a table of `paired_effects` as lines: the base with its mean, then each other arm with its effect."""
    base = effects.iloc[0]
    lines = [f"against {base.iloc[0]} ({effect_in_words(base, digits)}; seeds: {base.seeds}):"]
    lines += [f"  {row.iloc[0]}: {effect_in_words(row, digits)}" for _, row in effects.iloc[1:].iterrows()]
    return "\n".join(lines)


def holm(p: pd.Series) -> pd.Series:
    """Return Holm's corrected p values (Holm 1979): the smallest times their number, the next times one less, ..."""
    ordered = p.dropna().sort_values()
    factors = range(len(ordered), 0, -1)
    return (ordered * list(factors)).cummax().clip(upper=1)


def _interval(differences: np.ndarray) -> dict[str, float]:
    """Return low, high and p of the mean of paired differences [seeds], nothing if there is only one."""
    if len(differences) < 2:
        return {}
    if np.ptp(differences) == 0:  # no spread, and so no t
        return {"low": differences[0], "high": differences[0], "p": float(differences[0] == 0)}
    test = stats.ttest_1samp(differences, 0)
    low, high = test.confidence_interval()
    return {"low": low, "high": high, "p": test.pvalue}
