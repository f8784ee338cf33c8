"""Evaluation of a captioner: likelihoods, controls, the files it saves, and what it refuses."""

import copy
import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.data.batches import CaptionBatches
from helpers.data.scene_captions import scene_entropy
from helpers.errors import UserError
from helpers.evaluation.bootstrap import bootstrap_interval
from helpers.evaluation.clipscore import ClipJudge
from helpers.evaluation.controls import derangement, nearest_captions, nearest_images, picture_information, shuffled
from helpers.evaluation.evaluate import evaluate, other_recipe, over_trainings
from helpers.evaluation.scores import NAMES, summary_lines, training_lines
from helpers.models.loading import load_gpt2
from helpers.pretraining.small_gpt2 import nll_per_token
from helpers.training.loss import CaptionLoss, validation_loss


@settings(deadline=None)
@given(st.integers(2, 300), st.integers(0, 2**31))
def test_a_derangement_moves_every_element(size, seed):
    order = derangement(size, seed)
    assert sorted(order.tolist()) == list(range(size))
    assert not (order == torch.arange(size)).any()
    assert torch.equal(order, derangement(size, seed))


def test_derangements_differ_by_seed():
    assert len({tuple(derangement(20, seed).tolist()) for seed in range(5)}) == 5


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        weights = rng.integers(40, 60, size=80).astype(float)
        low, high = bootstrap_interval(weights * rng.normal(0.3, 1.0, size=80), weights)
        covered += low < 0.3 < high
    assert 88 <= covered <= 100


def loss(writer, batches):
    return validation_loss(CaptionLoss(writer.captioner), batches)


@pytest.fixture(scope="module")
def references(data):
    """The captions of 40 pictures, most of them trained on: this world's test split is too small to measure on."""
    return data.captions.head(200)


def test_the_likelihood_of_the_references_is_the_captioners_own_loss(writer, references, cache):
    batches = CaptionBatches(references, cache, writer.tokenizer, batch_size=7)
    information = picture_information(writer.captioner, batches)
    assert information["nats_per_token_true"] == pytest.approx(loss(writer, batches), rel=1e-5)
    batches.embeddings = writer.captioner.embedding_mean.expand(batches.embeddings.shape)
    assert information["nats_per_token_mean"] == pytest.approx(loss(writer, batches), rel=1e-5)
    batches = CaptionBatches(references, cache, writer.tokenizer, batch_size=7)
    captions, tokens = len(batches.tokens), sum(map(len, batches.tokens))
    for name, other in (("wrong_picture_costs", "shuffled"), ("mean_embedding_costs", "mean")):
        low, high = information[f"{name}_per_token_95_interval"]
        difference = information[f"nats_per_token_{other}"] - information["nats_per_token_true"]
        assert information[f"{name}_per_token"] == pytest.approx(difference)
        assert information[f"{name}_per_caption"] == pytest.approx(difference * tokens / captions)
        assert low < information[f"{name}_per_token"] < high


def test_what_the_picture_tells_is_measured_against_a_writer_that_knows_none(writer, references, cache):
    batches, (gpt2, tokenizer) = CaptionBatches(references, cache, writer.tokenizer, batch_size=7), load_gpt2("tiny")
    information = picture_information(writer.captioner, batches, language_model=gpt2)
    alone = nll_per_token(gpt2, tokenizer(list(batches.captions.caption), add_special_tokens=False)["input_ids"])
    assert information["nats_per_token_language_model"] == pytest.approx(alone, rel=1e-5)
    known = min(alone, information["nats_per_token_mean"])
    tells = known - information["nats_per_token_true"]
    assert information["picture_tells_per_token"] == pytest.approx(tells, rel=1e-4)
    low, high = information["picture_tells_per_caption_95_interval"]
    assert low < information["picture_tells_per_caption"] < high < scene_entropy()  # there is no more to tell


def test_the_better_of_two_writers_without_a_picture_is_the_baseline(writer, references, cache):
    batches, (gpt2, _) = CaptionBatches(references, cache, writer.tokenizer, batch_size=64), load_gpt2("tiny")

    def baseline(captioner, gpt2):
        found = picture_information(captioner, batches, language_model=gpt2)
        assert found["picture_tells_per_token"] == pytest.approx(
            found[f"nats_per_token_{found['without_picture']}"] - found["nats_per_token_true"]
        )
        return found["without_picture"]

    confused, trusting = copy.deepcopy(gpt2), copy.deepcopy(writer.captioner)
    with torch.no_grad():
        confused.lm_head.weight.mul_(20)  # sure of itself, and mostly wrong
        trusting.gpt2.lm_head.weight.mul_(20)
    assert baseline(writer.captioner, confused) == "mean"
    assert baseline(trusting, gpt2) == "language_model"


def test_metrics_say_in_words_what_is_known_without_a_picture(
    writer, references, cache, config, tiny_gpt2, tmp_path, monkeypatch
):
    def measured(config, learned=False):
        monkeypatch.setattr(writer.captioner.config, "learned_without_picture", learned)
        metrics = evaluate(writer, references.head(20), cache, out=tmp_path, config=config)
        return metrics["without_picture"], metrics["not_measured"].get("nats_per_token_language_model")

    assert writer.captioner.config.learned_without_picture is False
    behind, random_one = "the captioner behind the mean embedding", config.with_values(gpt2=tiny_gpt2)
    nothing, captions = f"{behind}, where it learned nothing", f"{behind}, where it learned captions without a picture"
    unknown = f"{behind} (whether it learned captions without a picture there is not known)"
    assert measured(config) == (nothing, None)  # after so few steps it has not forgotten how to write
    assert measured(None) == (nothing, "the config of the captioner's training is not known")
    words, reason = measured(random_one, learned=True)  # by the training that this one started from
    assert words == captions
    assert reason.startswith("the language model has 257 tokens and end-of-text 256, which does not fit the captioner")
    words, reason = measured(config.with_values(gpt2="runs/that/is/gone"))
    assert words == nothing
    assert reason.startswith("runs/that/is/gone is no folder")

    # A captioner of before does not say it; the config of its last training may.
    assert measured(None, learned=None)[0] == measured(None, learned="often")[0] == unknown
    assert measured(random_one, learned=None)[0] == nothing
    assert measured(random_one.with_values(text_share=0.5), learned=None)[0] == captions
    later = config.with_values(start_from="runs/that/is/gone")
    assert measured(later, learned=None)[0] == unknown
    assert measured(later.with_values(text_share=0.5), learned=None)[0] == captions


def test_several_trainings_have_a_mean_and_an_interval_over_them():
    runs = {"a": {"cider": 1.0, "cider_95_interval": [0.5, 1.5], "images": 9, "clip": "x", "bleu_4": 0.5,
                  "nats_per_token_language_model": 3.0},  # which the others could not measure
            "b": {"cider": 2.0, "bleu_4": 0.5}, "c": {"cider": 3.0, "bleu_4": 0.5}}  # fmt: skip
    found = over_trainings(runs)
    assert found["captioners"] == ["a", "b", "c"]
    assert found["scores"].keys() == {"cider", "bleu_4"}
    cider = found["scores"]["cider"]
    assert (cider["mean"], cider["of_each"], cider["first_over_pictures"]) == (2.0, [1.0, 2.0, 3.0], [0.5, 1.5])
    assert cider["over_trainings"] == pytest.approx([2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5], abs=1e-3)
    assert found["scores"]["bleu_4"]["over_trainings"] == [0.5, 0.5]
    lines = training_lines(found)
    assert f"  {'CIDEr':<30}2.000 [-0.484, 4.484]; 1.000 [0.500, 1.500]" in lines
    assert f"  {'BLEU-4':<30}0.500 [0.500, 0.500]; 0.500" in lines


def test_trainings_of_one_recipe_differ_in_nothing_but_the_seed(config):
    def said(*configs):
        return other_recipe(dict(zip("abc", configs, strict=False)))

    same = config.with_values(seed=5, micro_batches=2, keep_checkpoints=9)  # which change no training
    assert said(config, same, config.with_values(seed=6)) is None
    other = same.with_values(mapper_layers=2, epochs=9)
    assert said(config, same, other) == "mapper_layers is 1 in a, but 2 in c"
    assert said(config, None, other) == "the config of b's training is not known"


def test_pictures_that_it_was_trained_on_are_not_held_out(writer, data, cache, tmp_path, monkeypatch):
    training, test = data.rows("train").head(50), data.rows("test")  # 10 pictures and 6
    wrong = pd.concat([test, training.assign(split="test")])
    for captions in (wrong, wrong.drop(columns="split")):
        with pytest.raises(UserError, match="was trained on 10 of these 16 held-out pictures, such as scene-") as error:
            evaluate(writer, captions, cache, out=tmp_path / "out")
        assert str(error.value).endswith(": give the --splits of its training, or leave these pictures out")
    assert not (tmp_path / "out").exists()

    def trained_on(writer, captions) -> list[str]:
        metrics = evaluate(writer, captions, cache, out=tmp_path / "out")
        assert any(line.startswith("  of them trained on") for line in summary_lines(metrics)) == (
            "trained_on" in metrics
        )
        return metrics.get("trained_on", [])

    assert trained_on(writer, pd.concat([test, training])) == []  # as training pictures they may be judged
    assert trained_on(replace(writer, trained_on=frozenset()), wrong) == []  # it does not know its training
    monkeypatch.setattr("helpers.evaluation.evaluate.TWICE", 0.3)  # collections hold some pictures twice
    few = pd.concat([test, training.head(5).assign(split="test")])
    assert trained_on(writer, few) == [training.image_name.iloc[0]]


def test_the_batch_size_of_the_validation_loss_does_not_matter(writer, references, cache):
    small, large = (CaptionBatches(references, cache, writer.tokenizer, batch_size=size) for size in (3, 64))
    assert loss(writer, small) == pytest.approx(loss(writer, large), rel=1e-5)


def test_all_files_are_saved_and_the_control_is_worse(writer, references, cache, data, tmp_path):
    true = evaluate(writer, references, cache, out=tmp_path / "true", facts=data.facts)
    control = evaluate(writer, references, cache, out=tmp_path / "control", facts=data.facts, control="shuffled")
    for folder, metrics in (("true", true), ("control", control)):
        assert json.loads((tmp_path / folder / "metrics.json").read_text()) == metrics
        captions = pd.read_csv(tmp_path / folder / "captions.csv", keep_default_na=False)
        assert list(captions.columns) == ["image_name", "caption"]
        assert list(captions.image_name) == list(references.image_name.unique())
        each = pd.read_csv(tmp_path / folder / "by_image.csv", keep_default_na=False)
        assert captions.equals(each[["image_name", "caption"]])
        assert each.cider.mean() == pytest.approx(metrics["cider"])
        assert metrics["cider_95_interval"][0] <= metrics["cider"] <= metrics["cider_95_interval"][1]
    assert true["wrong_picture_costs_per_token"] > 0
    assert (true["embeddings"], control["embeddings"]) == ("true", "shuffled")
    assert true["correct_shuffled"] == control["correct"] <= true["correct"]
    assert "correct_shuffled" not in control


def saved_captions(folder) -> list[str]:
    return list(pd.read_csv(folder / "captions.csv", keep_default_na=False).caption)


def test_captions_of_the_shuffled_control_are_those_of_other_pictures(writer, references, cache, tmp_path):
    evaluate(writer, references, cache, out=tmp_path, control="shuffled")
    names = list(references.image_name.unique())
    others = [names[i] for i in derangement(len(names), seed=0)]
    assert saved_captions(tmp_path) == writer.write(cache.rows(others))


def test_the_mean_control_has_one_caption_for_all(writer, references, cache, tmp_path):
    metrics = evaluate(writer, references, cache, out=tmp_path, control="mean")
    assert saved_captions(tmp_path) == writer.write(writer.captioner.embedding_mean.cpu()[None]) * 40
    assert (metrics["embeddings"], metrics["distinct_captions"]) == ("mean", 1)


def test_the_nearest_control_copies_a_caption_of_the_nearest_training_picture(writer, data, cache, tmp_path):
    held_out, training = (data.captions[data.captions.split.isin(some)] for some in (["val", "test"], ["train"]))
    metrics = evaluate(writer, held_out, cache, out=tmp_path, control="nearest", training=training, facts=data.facts)
    assert (metrics["copied"], metrics["embeddings"]) == (1.0, "none: a caption of the nearest training picture")
    names, known = list(held_out.image_name.unique()), list(training.image_name.unique())
    cosines = torch.nn.functional.cosine_similarity(cache.rows(names)[:, None], cache.rows(known)[None], dim=2)
    first = training.drop_duplicates("image_name").set_index("image_name").caption
    assert saved_captions(tmp_path) == [first[known[place]] for place in cosines.argmax(dim=1)]
    with pytest.raises(UserError, match="of the pictures are training pictures, such as scene-"):
        evaluate(writer, data.captions, cache, out=tmp_path, control="nearest", training=training)
    with pytest.raises(UserError, match="no training picture has an embedding, so none is nearest: embed those"):
        nearest_captions(cache, names, training.head(0))


def test_controls_of_patches(data, patches):
    names = data.image_names()
    others = shuffled(patches, names[:6])[torch.arange(6)]
    assert torch.equal(others, patches.rows(names[i] for i in derangement(6, seed=0)))
    held_out, known = names[:10], names[10:]
    token = patches.rows(known)[:, 0]
    cosines = torch.nn.functional.cosine_similarity(patches.rows(held_out)[:, :1], token[None], dim=2)
    assert nearest_images(patches, held_out, known) == [known[place] for place in cosines.argmax(dim=1)]


def test_clipscore_beside_the_others_and_a_warning_of_the_own_clip(writer, references, cache, data, tmp_path):
    with pytest.warns(UserWarning, match="the captioner's own CLIP"):
        metrics = evaluate(writer, references, cache, out=tmp_path, judge=ClipJudge.load("tiny"), images=data.images)
    assert metrics["clip_is_the_captioners"] is True
    assert metrics["clipscore_95_interval"][0] < metrics["clipscore"] < metrics["clipscore_95_interval"][1]
    assert "clipscore" in pd.read_csv(tmp_path / "by_image.csv")


def test_without_pycocoevalcap_the_scores_are_left_out_and_it_says_so(
    writer, references, cache, data, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    metrics = evaluate(writer, references, cache, out=tmp_path, facts=data.facts)
    assert "cider" not in metrics
    assert metrics["not_measured"]["cider"] == "pycocoevalcap is not installed: pip install pycocoevalcap"
    assert {"picture_tells_per_token", "correct", "words"} <= metrics.keys()


def test_a_captioner_that_was_training_is_measured_without_dropout(writer, references, cache):
    batches = CaptionBatches(references, cache, writer.tokenizer, batch_size=64)
    writer.captioner.train()
    assert loss(writer, batches) == validation_loss(CaptionLoss(writer.captioner), batches)
    assert writer.captioner.training
    writer.captioner.eval()


def test_one_picture_is_too_few(writer, references, cache, tmp_path):
    with pytest.raises(UserError, match="only 1 image can be evaluated, but the shuffled control needs at least 2"):
        evaluate(writer, references.head(5), cache, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_impossible_wish_is_refused_before_anything_is_done(data, tmp_path):
    def refused(**wish) -> str:
        with pytest.raises(UserError) as error:  # neither a captioner nor a cache is looked at
            evaluate(None, data.captions, None, out=tmp_path / "out", **wish)
        return str(error.value)

    assert refused(control="blind") == (
        "control is 'blind', but must be one of shuffled, mean, nearest, or None for none"
    )
    assert refused(control="nearest").startswith(
        "the control 'nearest' copies from the training captions: give training"
    )
    assert refused(judge=object()).startswith("CLIPScore looks at the pictures: give images")
    assert not (tmp_path / "out").exists()


def test_the_summary_names_everything_that_was_measured(writer, data, cache, config, tmp_path):
    held_out, training = (data.captions[data.captions.split.isin(some)] for some in (["val", "test"], ["train"]))
    with pytest.warns(UserWarning, match="the captioner's own CLIP"):
        metrics = evaluate(
            writer, held_out, cache, out=tmp_path, facts=data.facts, training=training, images=data.images,
            judge=ClipJudge.load("tiny"), config=config,
        )  # fmt: skip
    values = {name for name in metrics if not name.endswith("_95_interval")}
    assert values - {"not_measured"} <= NAMES.keys()
    lines = summary_lines(metrics, examples=[("a.png", "A red star.")])
    for name in values - {"not_measured", "images_without_embedding", "pictures_not_read"}:  # these are 0 and empty
        assert any(line.startswith(f"  {NAMES[name]} ") for line in lines), name
    assert not any(name in line for line in lines for name in metrics if "_" in name)  # raw keys are for metrics.json
    assert "  a.png: A red star." in lines
