"""A verdict claims no more than the seeds support."""

import numpy as np
import pandas as pd
import pytest

from helpers.experiments.significance import compare_arms, paired_effects, summarise_arms


def results(**shares: list[float]) -> pd.DataFrame:
    rows = [(name, seed, share) for name, several in shares.items() for seed, share in enumerate(several)]
    return pd.DataFrame(rows, columns=["mapper", "seed", "correct"])


def stands(**shares: list[float]) -> list[str]:
    return list(compare_arms(results(**shares), by="mapper").stands)


def test_a_tie_is_called_a_tie():
    assert stands(mlp=[0.80, 0.84, 0.88], encoder=[0.81, 0.86, 0.87]) == ["tie", "best"]
    assert stands(mlp=[0.80, 0.81, 0.82], encoder=[0.90, 0.91, 0.92]) == ["behind", "best"]
    assert stands(mlp=[0.5, 0.5], encoder=[0.5, 0.5]) == ["best", "tie"]


def test_the_lowest_loss_is_the_best():
    table = results(mlp=[0.80, 0.81, 0.82], encoder=[0.90, 0.91, 0.92]).rename(columns={"correct": "val_loss"})
    assert list(compare_arms(table, by="mapper", measure="val_loss").stands) == ["best", "behind"]


def test_one_seed_is_not_judged():
    assert stands(mlp=[0.8], encoder=[0.9]) == ["not judged", "not judged"]
    assert stands(mlp=[0.2], encoder=[0.9, 0.91, 0.92]) == ["not judged", "best"]


def test_the_table_has_means_intervals_and_numbers_of_seeds():
    table = compare_arms(results(mlp=[0.2, 0.4], encoder=[0.9, 0.9, 0.9]), by="mapper")
    assert list(table.columns) == ["mapper", "mean", "low", "high", "seeds", "stands"]
    assert table["mean"].tolist() == pytest.approx([0.3, 0.9])
    assert table[["low", "high"]].values.tolist() == [[0, 1], pytest.approx([0.9, 0.9])]  # a share stays within 0 and 1
    losses = compare_arms(
        results(mlp=[0.2, 0.4]).rename(columns={"correct": "val_loss"}), by="mapper", measure="val_loss"
    )
    assert losses[["low", "high"]].values.tolist() == [pytest.approx([0.3 - 1.271, 0.3 + 1.271])]
    assert table.seeds.tolist() == [2, 3]
    assert compare_arms(results(mlp=[0.2]), by="mapper").low.isna().all()
    many = compare_arms(results(mlp=[0.1, 0.2] * 20), by="mapper")  # never narrower than t allows for ten seeds
    assert many.high[0] - many["mean"][0] == pytest.approx(2.26 * 0.0506 / 40**0.5, rel=0.01)


def test_an_answer_is_the_verdict_in_one_row():
    table = results(mlp=[0.80, 0.81, 0.82], encoder=[0.90, 0.91, 0.92], queries=[0.89, 0.91, 0.92])
    best = {"best, or base": "encoder: 0.91 [0.89, 0.93]", "tie": "queries 0.91", "behind": "mlp 0.81", "ahead": ""}
    assert summarise_arms(table, "mapper") == {**best, "not judged": "", "seeds": "3"}
    losses = table.rename(columns={"correct": "val_loss"})
    assert summarise_arms(losses, "mapper", measure="val_loss")["best, or base"] == "mlp: 0.81 [0.79, 0.83]"
    base = {"best, or base": "mlp: 0.81 [0.79, 0.83]", "tie": "", "behind": "", "ahead": "encoder 0.91, queries 0.91"}
    assert summarise_arms(table, "mapper", base="mlp") == {**base, "not judged": "", "seeds": "3"}
    assert list(compare_arms(table, "mapper", base="mlp").stands) == ["base", "ahead", "ahead"]


def test_what_has_one_seed_is_in_an_answer_too():
    table = results(mlp=[0.80, 0.82], encoder=[0.95])
    assert list(compare_arms(table, "mapper").stands) == ["not judged", "not judged"]
    found = {name: text for name, text in summarise_arms(table, "mapper").items() if text}
    assert found == {"best, or base": "encoder: 0.95", "not judged": "mlp 0.81", "seeds": "1 to 2"}


def test_differences_are_paired_by_seed_and_corrected_for_their_number():
    rng = np.random.default_rng(0)
    seeds = rng.normal(0, 1, size=6)  # what a seed adds to every arm
    table = pd.concat(
        pd.DataFrame({"arm": arm, "seed": range(6), "cider": shift + seeds + rng.normal(0, 0.01, size=6)})
        for arm, shift in (("base", 0.0), ("better", 0.1), ("same", 0.0))
    )
    effects = paired_effects(table, "arm", measure="cider", base="base").set_index("arm")
    assert list(effects.index) == ["base", "better", "same"]
    better, same = effects.loc["better"], effects.loc["same"]
    assert better.low < 0.1 < better.high
    assert better.low > 0.05
    assert same.low < 0 < same.high
    assert better.p_holm == pytest.approx(2 * better.p)
    assert same.p_holm == pytest.approx(max(same.p, better.p_holm))
    assert list(effects.seeds) == [6, 6, 6]


def test_equal_arms_seldom_seem_different():
    rng, tables, arms = np.random.default_rng(1), 400, 5
    false = 0
    for _ in range(tables):
        values = rng.normal(size=(arms, 5))
        table = pd.DataFrame([(arm, seed, values[arm, seed]) for arm in range(arms) for seed in range(5)],
                             columns=["arm", "seed", "cider"])  # fmt: skip
        false += (paired_effects(table, "arm", measure="cider", base=0).p_holm < 0.05).any()
    assert false / tables < 0.08  # 5 % and what 400 tables scatter


def test_one_seed_has_no_interval_and_a_missing_run_costs_only_its_pair():
    table = pd.DataFrame({"arm": ["a", "b", "a", "a"], "seed": [0, 0, 1, 2], "cider": [1.0, 2.0, 1.0, 1.0]})
    effects = paired_effects(table, "arm", measure="cider", base="a")
    assert list(effects.seeds) == [3, 1]
    assert effects.difference[1] == 1
    assert effects[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="no row has arm 'c'"):
        paired_effects(table, "arm", measure="cider", base="c")
