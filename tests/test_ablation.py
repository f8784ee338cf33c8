"""One thing changed over several seeds, and a verdict that does not say more than the seeds do."""

from dataclasses import replace

import pandas as pd
import pytest

from helpers import ablation
from helpers.ablation import ablate, verdict
from helpers.errors import UserError
from helpers.flags import read_vary


def results(**shares: list[float]) -> pd.DataFrame:
    rows = [(name, seed, share) for name, several in shares.items() for seed, share in enumerate(several)]
    return pd.DataFrame(rows, columns=["mapper", "seed", "correct"])


def stands(**shares: list[float]) -> list[str]:
    return list(verdict(results(**shares), by="mapper").stands)


def test_a_tie_is_called_a_tie():
    assert stands(mlp=[0.80, 0.84, 0.88], encoder=[0.81, 0.86, 0.87]) == ["tie", "best"]
    assert stands(mlp=[0.80, 0.81, 0.82], encoder=[0.90, 0.91, 0.92]) == ["behind", "best"]
    assert stands(mlp=[0.5, 0.5], encoder=[0.5, 0.5]) == ["best", "tie"]


def test_one_seed_is_not_judged():
    assert stands(mlp=[0.8], encoder=[0.9]) == ["not judged", "not judged"]
    assert stands(mlp=[0.2], encoder=[0.9, 0.91, 0.92]) == ["not judged", "best"]


def test_the_table_has_means_spreads_and_numbers_of_seeds():
    table = verdict(results(mlp=[0.2, 0.4], encoder=[0.9, 0.9, 0.9]), by="mapper")
    assert list(table.columns) == ["mapper", "mean", "std", "count", "stands"]
    assert table["mean"].tolist() == pytest.approx([0.3, 0.9])
    assert table["count"].tolist() == [2, 3]


def test_the_text_of_a_flag_becomes_values():
    texts = ["prefix_length=1,4", "mapper=mlp,queries", "train_embeddings=true,false", "gpt2_lr=1e-3"]
    assert read_vary(texts) == {
        "prefix_length": [1, 4], "mapper": ["mlp", "queries"], "train_embeddings": [True, False], "gpt2_lr": [0.001],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["colour=red"], "--vary colour=red: colour is no field of the config; its fields are clip, gpt2"),
        (["prefix_length=one"], "--vary prefix_length=one: the values of prefix_length are ints"),
        (["prefix_length"], "--vary prefix_length: the values of prefix_length are ints"),
        (["train_embeddings=yes"], "'yes' is neither true nor false"),
        (["seed=1,2"], "seed is varied already"),
        (["mapper=mlp", "mapper=queries"], "mapper is varied already"),
    ],
)
def test_a_flag_that_cannot_be_read_is_named(texts, message):
    with pytest.raises(UserError) as error:
        read_vary(texts)
    assert message in str(error.value)


@pytest.fixture
def experiment(config, data, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "RUNS", tmp_path / "runs")

    def run(vary, seeds=1, data=data, **values):
        return ablate(config.with_values(**{"epochs": 1, **values}), vary, seeds, data, cache, tmp_path / "results.csv")

    return run


def test_every_value_has_a_row_a_seed_and_what_is_done_stays(experiment, config, monkeypatch, tmp_path):
    vary = {"prefix_length": [1, 2], "train_embeddings": [False]}
    first = experiment(vary)
    assert first[["prefix_length", "train_embeddings", "seed"]].values.tolist() == [[1, False, 0], [2, False, 0]]
    assert first.correct.between(0, 1).all()
    assert len(list((tmp_path / "runs" / "results").iterdir())) == 2
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "results.csv"), first)
    monkeypatch.delattr(ablation, "train")
    pd.testing.assert_frame_equal(experiment(vary), first)
    with pytest.raises(UserError, match="holds results of another base config"):
        experiment(vary, epochs=2)


def test_a_wrong_value_is_found_before_the_first_run(experiment, data, tmp_path):
    with pytest.raises(UserError, match="prefix_length is 0, but must be at least 1"):
        experiment({"prefix_length": [4, 0]})
    with pytest.raises(UserError, match="seeds is 0"):
        experiment({"prefix_length": [4]}, seeds=0)
    with pytest.raises(UserError, match=r"facts\.json, and these data have none"):
        experiment({"prefix_length": [4]}, data=replace(data, facts=None))
    assert not list(tmp_path.iterdir())
