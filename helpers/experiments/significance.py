"""Comparisons within a results table of several seeds; a tie is called a tie."""

import pandas as pd
from scipy import stats

TIE = 2.0  # standard errors of the difference within which two means are a tie
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)  # t for 95 %, by degrees of freedom from 1 on


def compare_arms(results: pd.DataFrame, by: str, *, measure: str = "correct", base: object = None) -> pd.DataFrame:
    """Return mean, 95 % interval and number of seeds for each value of `by`, and how it compares to the best or `base`.

    low, high: by Student's t from the spread of the seeds, so they are wide for three. "best" is the highest mean (the
    lowest for `val_loss`); "tie" is within TIE standard errors of it (Welch's, from the seeds' own spread); "behind" is
    below that, and "ahead" above the `base`. One seed has no spread and so no interval: "not judged".
    """
    table = results.groupby(by, sort=False)[measure].agg(["mean", "std", "count"]).reset_index()
    variance = table["std"] ** 2 / table["count"]  # of the mean; NaN for one seed
    sign = -1 if measure == "val_loss" else 1
    first = _first(table, by, measure=measure, base=base)
    gaps = sign * (table.loc[first, "mean"] - table["mean"])
    ties = TIE * (variance + variance[first]) ** 0.5
    stands = ["not judged" if pd.isna(tie) else "tie" if abs(gap) <= tie else "behind" if gap > 0 else "ahead"
              for gap, tie in zip(gaps, ties, strict=True)]  # fmt: skip
    if base is not None or table["count"][first] > 1:
        stands[first] = "best" if base is None else "base"
    students = pd.Series([STUDENT[min(max(seeds - 1, 1), len(STUDENT)) - 1] for seeds in table["count"]])
    low, high = (table["mean"] + side * students * variance**0.5 for side in (-1, 1))
    if measure != "val_loss":  # a share
        low, high = low.clip(lower=0), high.clip(upper=1)
    return pd.DataFrame(
        {by: table[by], "mean": table["mean"], "low": low, "high": high, "seeds": table["count"], "stands": stands}
    )


def summarise_arms(results: pd.DataFrame, by: str, *, measure: str = "correct", base: object = None) -> dict[str, str]:
    """Return the comparison in one row: best or base with its interval, the others by how they compare, seeds."""
    table = compare_arms(results, by, measure=measure, base=base)
    first = _first(table, by, measure=measure, base=base)
    value, mean, low, high, seeds, _ = table.loc[first]
    row = {"best, or base": f"{value}: {mean:.2f}" + (f" [{low:.2f}, {high:.2f}]" if seeds > 1 else "")}
    others = table.drop(index=first)
    for stands in ("ahead", "tie", "behind", "not judged"):
        those = others[others.stands == stands]
        row[stands] = ", ".join(f"{value} {mean:.2f}" for value, mean in zip(those[by], those["mean"], strict=True))
    fewest, most = table.seeds.min(), table.seeds.max()
    return row | {"seeds": f"{fewest}" if fewest == most else f"{fewest} to {most}"}


def _first(table: pd.DataFrame, by: str, *, measure: str, base: object) -> int:
    """Return the row that the others are compared with."""
    if base is not None:
        return table.index[table[by] == base][0]
    return table["mean"].idxmin() if measure == "val_loss" else table["mean"].idxmax()


def paired_effects(results: pd.DataFrame, by: str, *, measure: str, base: object) -> pd.DataFrame:
    """Return what each value of `by` changes against `base`, paired by seed: one row per value, the base's first.

    Columns: the value, mean, difference (the mean over the seeds that both have), low and high (its 95 % interval by
    Student's t, two-sided), p, p_holm (p corrected by Holm for all comparisons of the table), seeds. A difference from
    one seed has neither interval nor p. Raises ValueError if no row has the base.
    """
    wide = results.pivot_table(index="seed", columns=by, values=measure, sort=False)
    if base not in wide.columns:
        raise ValueError(f"no row has {by} {base!r}")
    rows = [{by: base, "mean": wide[base].mean(), "difference": 0.0, "seeds": int(wide[base].count())}]
    for value in wide.columns.drop(base):
        pairs = wide[[base, value]].dropna()
        row = {by: value, "mean": wide[value].mean(), "difference": (pairs[value] - pairs[base]).mean()}
        if len(pairs) > 1:
            test = stats.ttest_rel(pairs[value], pairs[base])
            low, high = test.confidence_interval()
            row |= {"low": low, "high": high, "p": test.pvalue}
        rows.append(row | {"seeds": len(pairs)})
    table = pd.DataFrame(rows, columns=[by, "mean", "difference", "low", "high", "p", "seeds"])
    table.insert(6, "p_holm", _holm(table.p))
    return table


def _holm(p: pd.Series) -> pd.Series:
    """Return Holm's corrected p values (Holm 1979): the smallest times their number, the next times one less, ..."""
    ordered = p.dropna().sort_values()
    factors = range(len(ordered), 0, -1)
    return (ordered * list(factors)).cummax().clip(upper=1)
