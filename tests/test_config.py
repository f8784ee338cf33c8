import json
from dataclasses import fields

import pytest

from helpers.config import DEFECTS, VARIED_BESIDE, Config
from helpers.errors import UserError
from helpers.experiments.original_bugs import BUGS
from helpers.experiments.trial import Trial
from helpers.presets import PRESETS, preset


def test_the_defaults_are_the_originals_figures():
    for name in ("small", "large"):
        config = preset(name)
        assert (config.prefix_length, config.mapper, config.mapper_layers) == (4, "encoder", 6)
        assert (config.freezing, config.batch_size, config.epochs, config.warmup) == ("first-and-last", 64, 150, 1 / 3)
    assert (preset("large").clip, preset("large").gpt2) == ("openai/clip-vit-large-patch14", "gpt2-medium")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mapper": "cnn"}, "mapper is 'cnn', but must be one of mlp, encoder, queries"),
        ({"freezing": "half"}, "freezing is 'half', but must be one of frozen, first-and-last, last-n, lora, full"),
        (
            {"freezing": "none"},
            "freezing is 'none', but must be one of frozen, first-and-last, last-n, lora, full; did you mean full?",
        ),
        (
            {"freezing": "all"},
            "freezing is 'all', but must be one of frozen, first-and-last, last-n, lora, full; did you mean frozen?",
        ),
        (
            {"mapper": "encodr"},
            "mapper is 'encodr', but must be one of mlp, encoder, queries, clipcap, original; did you",
        ),
        ({"lora_rank": 0}, "lora_rank is 0, but must be between 1 and 4096"),
        ({"mapper_layers": 10**11}, "mapper_layers is 100000000000, but must be between 1 and 256"),
        ({"prefix_length": 0}, "prefix_length is 0, but must be between 1 and 1024"),
        ({"prefix_length": 10**11}, "prefix_length is 100000000000, but must be between 1 and 1024"),
        ({"dropout": 1.5}, "dropout is 1.5, but must be between 0 and 0.9"),
        ({"mapper_lr": 0.0}, "mapper_lr is 0.0, but must be above 0"),
        ({"gpt2_lr": float("nan")}, "gpt2_lr is nan, but must be above 0"),
        ({"precision": "int8"}, "precision is 'int8', but must be one of auto, fp32, fp16, bf16"),
        ({"learning_rate": 1.0}, "config has no field learning_rate; its fields are clip, gpt2, start_from, pooling"),
        ({"pooling": "mean"}, "pooling is 'mean', but must be one of pooled, patches"),
        (
            {"pooling": "patches", "mapper": "mlp"},
            "mapper is 'mlp', which takes one vector a picture, but pooling is 'patches': "
            "choose mapper queries or encoder, or pooling pooled",
        ),
    ],
)
def test_a_wrong_value_is_named_with_the_rule(values, message):
    with pytest.raises(UserError) as error:
        Config().with_values(**values)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("values", [{}, {"pooling": "patches", "freezing": "lora", "lora_rank": 4}])
def test_it_is_read_back_from_its_dict(values):
    config = preset("tiny").with_values(**values)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(("before", "now"), [("none", "full"), ("all", "frozen"), ("last-n", "last-n")])
def test_a_config_of_an_older_version_is_understood(before, now):
    older = {name: value for name, value in Config().to_dict().items() if name != "pooling"}
    assert Config.from_dict({**older, "freezing": before}) == Config(freezing=now)


def test_a_name_that_no_version_knew_is_refused():
    with pytest.raises(UserError, match="config has no field learning_rate; its fields are"):
        Config.from_dict({"learning_rate": 1.0})


def test_every_field_says_what_it_is_for():
    for each in fields(Config):
        text = each.metadata["help"]
        assert text[0].isupper()
        assert text.endswith(".")
        assert each.metadata["group"]
        assert (each.type in (int, float)) == bool({"least", "above"} & each.metadata["rule"].keys())


def test_an_ablation_varies_what_its_trials_know():
    assert {"config", *VARIED_BESIDE} == set(Trial.__dataclass_fields__)
    assert list(BUGS) == list(DEFECTS)


def test_unknown_preset():
    with pytest.raises(UserError, match=f"preset is 'huge', but must be one of {', '.join(PRESETS)}"):
        preset("huge")
