"""The same training with one thing changed, over several seeds, and a verdict that calls a tie a tie."""

import itertools
import json
from pathlib import Path
from typing import Any

import pandas as pd

from .atomic import atomic_path
from .config import Config
from .embeddings import EmbeddingCache
from .errors import UserError
from .evaluation import share_right
from .journey import Data
from .training import train
from .writer import CaptionWriter

RUNS = Path("runs/ablations")
TIE = 2.0  # two means closer than this many standard errors of their difference are a tie


def ablate(
    base: Config, vary: dict[str, list[Any]], seeds: int, data: Data, cache: EmbeddingCache, out: str | Path
) -> pd.DataFrame:
    """Train every combination of the values in `vary` with every seed, and write one row each to the CSV `out`.

    Judged on validation images. Columns: the varied fields, seed, correct (the share of captions with every fact
    right), val_loss (nats a token), steps, seconds. The runs lie under RUNS; what is finished is not run again.
    Raises UserError when `out` holds another experiment, or the data have no facts to judge by.
    """
    if data.facts is None:
        raise UserError("an ablation judges captions by the drawn world's facts.json, and these data have none")
    if seeds < 1:
        raise UserError(f"seeds is {seeds}, but each value needs a run with at least 1")
    configs = [base.with_values(**dict(zip(vary, values, strict=True))) for values in itertools.product(*vary.values())]
    out = Path(out)
    names = data.image_names("val")
    rows = pd.read_csv(out).to_dict("records") if out.exists() else []
    _claim(out, base, vary)
    for config in configs:
        for seed in range(seeds):
            key = {**{name: getattr(config, name) for name in vary}, "seed": seed}
            if any(all(str(row[name]) == str(value) for name, value in key.items()) for row in rows):
                continue
            folder = RUNS / out.stem / "-".join(f"{name}={value}" for name, value in key.items())
            run = train(config.with_values(seed=seed), data.captions, cache.folder, folder, resume=True)
            history, writer = run.history(), CaptionWriter.load(run.captioner)
            rows.append({
                **key,
                "correct": share_right(names, writer.write(cache.rows(names)), data.facts),
                "val_loss": history.val_loss.dropna().iloc[-1],
                "steps": history.step.iloc[-1],
                "seconds": history.elapsed_seconds.iloc[-1],
            })  # fmt: skip
            with atomic_path(out) as partial:
                pd.DataFrame(rows).to_csv(partial, index=False)
    return pd.DataFrame(rows)


def verdict(results: pd.DataFrame, by: str, measure: str = "correct") -> pd.DataFrame:
    """Mean, standard deviation and number of seeds for each value of `by`, and how it stands to the best.

    "best" is the highest mean; "tie" is within TIE standard errors of it (Welch's, from the seeds' own spread);
    "behind" is neither. With one seed there is no spread to judge by, and everything is "not judged".
    """
    table = results.groupby(by, sort=False)[measure].agg(["mean", "std", "count"]).reset_index()
    best = table.loc[table["mean"].idxmax()]
    error = ((table["std"] ** 2 / table["count"]) + best["std"] ** 2 / best["count"]) ** 0.5
    table["stands"] = [
        "not judged" if seeds < 2 else "best" if value == best[by] else "tie" if gap <= TIE * e else "behind"
        for value, gap, e, seeds in zip(table[by], best["mean"] - table["mean"], error, table["count"], strict=True)
    ]
    return table


def _claim(out: Path, base: Config, vary: dict[str, list[Any]]) -> None:
    """One results file, one base config: rows of different ones must not be compared."""
    file = out.with_suffix(".json")
    fixed = {name: value for name, value in base.to_dict().items() if name not in (*vary, "seed")}
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != fixed:
        raise UserError(f"{out} holds results of another base config (see {file}): name another file")
    with atomic_path(file) as partial:
        partial.write_text(json.dumps(fixed, indent=2) + "\n", encoding="utf-8")
