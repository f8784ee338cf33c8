"""A verdict claims no more than the seeds support."""

import pandas as pd
import pytest

from helpers.experiments.significance import compare_arms, summarise_arms


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
