"""A verdict claims no more than the seeds support."""

import numpy as np
import pandas as pd
import pytest

from helpers.experiments.significance import best_of, effect_in_words, effects_in_words, paired_effects


def table_of(arms: np.ndarray) -> pd.DataFrame:
    """Return a results table of values [arms, seeds]."""
    rows = [(arm, seed, value) for arm, values in enumerate(arms) for seed, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["arm", "seed", "cider"])


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
    assert list(effects.verdict) == ["base", "higher", "no difference shown"]


@pytest.mark.parametrize("arms", [2, 5])
def test_equal_arms_get_a_verdict_in_one_table_of_twenty_at_most(arms):
    """Two standard errors as the limit gave one in 11 % of such tables with 2 arms, and in 46 % with 5."""
    rng, tables = np.random.default_rng(arms), 400
    judged = (paired_effects(table_of(rng.normal(size=(arms, 5))), "arm", measure="cider", base=0).verdict
              for _ in range(tables))  # fmt: skip
    false = sum(verdicts.isin(["higher", "lower"]).any() for verdicts in judged)
    assert false / tables < 0.05 + 2 * (0.05 * 0.95 / tables) ** 0.5


def test_an_interval_without_zero_is_no_verdict_if_many_were_tried():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(8, 5)) * 0.1
    values[1] = values[0] + np.array([0.2, 0.5, 0.3, 0.1, 0.4])
    effects = paired_effects(table_of(values), "arm", measure="cider", base=0).set_index("arm")
    assert effects.low[1] > 0
    assert effects.p[1] < 0.05 < effects.p_holm[1]
    assert effects.verdict[1] == "no difference shown"


def test_arms_without_any_spread_have_a_verdict_and_no_warning(recwarn):
    effects = paired_effects(table_of(np.array([[0.0] * 5, [0.0] * 5, [0.5] * 5])), "arm", measure="cider", base=0)
    assert list(effects.verdict) == ["base", "no difference shown", "higher"]
    assert effects[["low", "high"]].values[1:].tolist() == [[0, 0], [0.5, 0.5]]
    assert not recwarn.list


def test_yes_and_no_are_arms_too():
    table = table_of(np.array([[0.5, 0.6, 0.7], [0.1, 0.2, 0.35]])).replace({"arm": {0: True, 1: False}})
    effects = paired_effects(table, "arm", measure="cider", base=True)
    assert list(effects.arm) == [True, False]
    assert effects.difference[1] == pytest.approx(-0.3833, abs=1e-3)


def test_one_seed_has_no_interval_and_a_missing_run_costs_only_its_pair():
    table = pd.DataFrame({"arm": ["a", "b", "a", "a"], "seed": [0, 0, 1, 2], "cider": [1.0, 2.0, 1.0, 1.0]})
    effects = paired_effects(table, "arm", measure="cider", base="a")
    assert list(effects.seeds) == [3, 1]
    assert effects.difference[1] == 1
    assert effects[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert effect_in_words(effects.iloc[1]) == "2.000, no difference shown: +1.000"
    with pytest.raises(ValueError, match="no row has arm 'c'"):
        paired_effects(table, "arm", measure="cider", base="c")


def test_each_value_is_compared_at_its_own_best():
    rows = [("mlp", 0.1, 0.9), ("mlp", 0.2, 0.5), ("encoder", 0.1, 0.3), ("encoder", 0.2, 0.8)]
    table = pd.DataFrame([(*row[:2], seed, row[2] + seed / 100, -row[2]) for row in rows for seed in range(3)],
                         columns=["mapper", "lr", "seed", "correct", "val_loss"])  # fmt: skip
    with pytest.raises(ValueError, match="several rows have the same mapper and seed"):
        paired_effects(table, "mapper", measure="correct", base="mlp")
    for measure in ("correct", "val_loss"):
        best = best_of(table, "mapper", "lr", measure=measure)
        assert best[["mapper", "lr"]].drop_duplicates().values.tolist() == [["mlp", 0.1], ["encoder", 0.2]]
    effects = paired_effects(best, "mapper", measure="correct", base="mlp")
    assert effects.difference[1] == pytest.approx(-0.1)


def test_an_effect_in_words_has_its_interval():
    table = table_of(np.array([[0.50, 0.52, 0.54], [0.70, 0.73, 0.73], [0.51, 0.50, 0.56]]))
    base, higher, unclear = (row for _, row in paired_effects(table, "arm", measure="cider", base=0).iterrows())
    assert effect_in_words(base) == "0.520"
    assert effect_in_words(higher, digits=2) == "0.72, higher: +0.20 [0.18, 0.22]"
    assert effect_in_words(unclear, digits=2) == "0.52, no difference shown: +0.00 [-0.05, 0.06]"
    lines = effects_in_words(paired_effects(table, "arm", measure="cider", base=0)).splitlines()
    assert lines[:2] == ["against 0 (0.520; seeds: 3):", "  1: 0.720, higher: +0.200 [0.175, 0.225]"]
