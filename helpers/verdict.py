"""What a results table of several seeds says, and a verdict that calls a tie a tie."""

import pandas as pd

TIE = 2.0  # two means closer than this many standard errors of their difference are a tie
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)  # t of 95 %, by degrees of freedom from 1 on


def verdict(results: pd.DataFrame, by: str, measure: str = "correct") -> pd.DataFrame:
    """Mean, its 95 % interval and number of seeds for each value of `by`, and how it stands to the best.

    low, high: by Student's t from the spread of the seeds; wide, where they are three. "best" is the highest mean (of
    `val_loss` the lowest); "tie" is within TIE standard errors of it (Welch's, from the seeds' own spread); "behind" is
    neither. With one seed there is no spread to judge by: no interval, and everything is "not judged".
    """
    table = results.groupby(by, sort=False)[measure].agg(["mean", "std", "count"]).reset_index()
    variance = table["std"] ** 2 / table["count"]  # of the mean; NaN for one seed
    students = pd.Series([STUDENT[min(max(seeds - 1, 1), len(STUDENT)) - 1] for seeds in table["count"]])
    sign = -1 if measure == "val_loss" else 1
    best = (sign * table["mean"]).idxmax()
    gaps = sign * (table.loc[best, "mean"] - table["mean"])
    ties = TIE * (variance + variance[best]) ** 0.5
    stands = [
        "not judged" if seeds < 2 else "best" if row == best else "tie" if gap <= tie else "behind"
        for row, gap, tie, seeds in zip(table.index, gaps, ties, table["count"], strict=True)
    ]
    low, high = (table["mean"] + side * students * variance**0.5 for side in (-1, 1))
    if measure != "val_loss":  # a share
        low, high = low.clip(lower=0), high.clip(upper=1)
    return pd.DataFrame(
        {by: table[by], "mean": table["mean"], "low": low, "high": high, "seeds": table["count"], "stands": stands}
    )


def answer(results: pd.DataFrame, by: str, measure: str = "correct") -> dict[str, str]:
    """A verdict in one row: varied, best (with mean and interval), ties (within the seeds' spread), behind, seeds."""
    table = verdict(results, by, measure)
    first = table.loc[(table["mean"] if measure == "val_loss" else -table["mean"]).idxmin()]
    row = {
        "varied": by.replace("_", " "),
        "best": f"{first[by]}: {first['mean']:.2f} [{first.low:.2f}, {first.high:.2f}]",
    }
    for stands, column in (("tie", "ties"), ("behind", "behind")):
        those = table[table.stands == stands]
        row[column] = ", ".join(f"{value} {mean:.2f}" for value, mean in zip(those[by], those["mean"], strict=True))
    return row | {"seeds": str(table.seeds.min())}
