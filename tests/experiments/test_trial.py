"""One run of an ablation: fixed by its name, on fewer pictures in as many steps, judged and recorded."""

import json
from dataclasses import replace

import pytest

from helpers.config import DEFECTS, VARIED_BESIDE
from helpers.errors import UserError
from helpers.experiments.original_bugs import BUGS
from helpers.experiments.trial import Trial, read_result, run_trial


def test_what_stands_beside_the_config_is_what_a_flag_can_say(config):
    assert {"config", *VARIED_BESIDE} == set(Trial.__dataclass_fields__)
    assert list(BUGS) == list(DEFECTS)
    trial = Trial.of(config, {"prefix_length": 2, "defect": "double-wpe", "train_images": 7, "seed": 3})
    assert (trial.defect, trial.train_images, trial.config) == (
        "double-wpe", 7, config.with_values(prefix_length=2, seed=3),
    )  # fmt: skip


def test_a_name_is_that_of_the_trial_and_its_data(config):
    trials = [Trial(config), Trial(config, "all"), Trial(config, train_images=5), Trial(config.with_values(seed=1))]
    assert len({trial.name(data) for trial in trials for data in ("one", "another")}) == 8
    assert Trial(config).name("one") == Trial.of(config, {"prefix_length": config.prefix_length}).name("one")


def test_fewer_images_come_in_as_many_more_epochs(config, data):
    names = data.image_names("train")
    assert Trial(config).fit(data)[0] is config
    assert Trial(config, train_images=len(names)).within(data) == Trial(config)
    few, captions = Trial(config, train_images=12).fit(data)
    chosen = captions[captions.split == "train"].image_name.unique()
    assert len(chosen) == 12
    assert set(chosen) < set(names)
    assert few.epochs == round(config.epochs * -(-len(names) * 5 // 32) / 2)
    assert (captions.split != "train").sum() == (data.captions.split != "train").sum()
    more = Trial(config, train_images=20).fit(data)[1]  # with one seed, the larger set contains the smaller one
    assert set(chosen) < set(more.image_name)
    assert set(Trial(config.with_values(seed=1), train_images=12).fit(data)[1].image_name) != set(captions.image_name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"defect": "typos"}, "defect is 'typos', but must be one of none, double-softmax, "),
        ({"defect": "mixed-images", "mapper": "mlp"}, "needs mapper encoder with pooling pooled, not mlp with pooled"),
        ({"train_images": 0}, "train_images is 0, but must be at least 1"),
        ({"train_images": 999}, "train_images is 999, but there are only"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(config, data, values, message):
    with pytest.raises(UserError) as error:
        Trial.of(config, values).within(data)
    assert message in str(error.value)


def test_a_result_stays_and_what_is_large_goes(config, data, cache, tmp_path):
    trial, folder = Trial(config.with_values(epochs=1), train_images=20), tmp_path / "run"
    result = run_trial(trial, data, cache.folder, folder=folder)
    assert set(result) == {"correct", "correct_seen", "val_loss", "steps", "seconds", "pictures_sha256"}
    assert 0 <= result["correct"] <= 1
    assert {path.name for path in folder.iterdir()} >= {"result.json", "history.csv", "samples.jsonl", "config.json"}
    assert not any((folder / name).exists() for name in ("checkpoints", "captioner", "captioner-best"))
    other = {"val_loss": 1.5, "steps": 1, "seconds": 2.0}
    (folder / "result.json").write_text(json.dumps(other))
    assert run_trial(trial, data, cache.folder, folder=folder) == other


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"val_loss": 1}', '{"val_loss": NaN, "steps": 1, "seconds": 1}',
                '{"val_loss": 1, "steps": 1, "seconds": 1, "correct": "x"}'],
)  # fmt: skip
def test_a_damaged_result_is_none(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    assert read_result(tmp_path / "result.json") is None


def test_photos_are_judged_by_their_captions_and_their_loss(config, data, cache, tmp_path):
    trial = Trial(config.with_values(epochs=1), defect="double-softmax")
    result = run_trial(trial, replace(data, facts=None), cache.folder, folder=tmp_path / "run")
    assert set(result) == {"cider", "bleu_4", "distinct", "val_loss", "steps", "seconds", "pictures_sha256"}
    assert 0 <= result["cider"] <= 10
    assert 1 <= result["distinct"] <= len(data.image_names("val"))
