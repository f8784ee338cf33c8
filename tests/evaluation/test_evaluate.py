"""Does it see? The measures, held against what they must be."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.analysis.scene_errors import share_right, wrong_facts
from helpers.data.batches import CaptionBatches
from helpers.data.scene_captions import Scene
from helpers.errors import UserError
from helpers.evaluation.bootstrap import bootstrap_interval
from helpers.evaluation.clipscore import ClipJudge
from helpers.evaluation.controls import derangement, nearest_captions, nearest_images, picture_information, shuffled
from helpers.evaluation.evaluate import evaluate
from helpers.training.loss import Likelihood, validation_loss

SCENE = Scene("gray", "red", "circle", 1, "left", "blue", "star")
RIGHT = "A red circle left of a blue star on plain gray."


@settings(deadline=None)
@given(st.integers(2, 300), st.integers(0, 2**31))
def test_a_derangement_moves_every_element(size, seed):
    order = derangement(size, seed)
    assert sorted(order.tolist()) == list(range(size))
    assert not (order == torch.arange(size)).any()
    assert torch.equal(order, derangement(size, seed))


def test_derangements_differ_by_seed():
    assert len({tuple(derangement(20, seed).tolist()) for seed in range(5)}) == 5


@pytest.mark.parametrize(
    ("caption", "wrong"),
    [
        (RIGHT, []),
        ("A red circle left of a blue star on plain pink.", ["background"]),
        ("A red circle above a green star on plain gray.", ["relation", "other_color"]),
        ("A blue star left of a red circle on plain gray.", ["color", "shape", "other_color", "other_shape"]),
        ("Two red circles on plain gray.", ["count", "relation", "other_color", "other_shape"]),
        ("A man in a blue shirt.", ["unreadable"]),
        ("", ["unreadable"]),
    ],
)
def test_the_wrong_facts_are_named(caption, wrong):
    assert wrong_facts(caption, SCENE) == wrong
    assert share_right(["a", "b"], [RIGHT, caption], {"a": SCENE, "b": SCENE}) == (0.5 if wrong else 1.0)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        weights = rng.integers(40, 60, size=80).astype(float)
        low, high = bootstrap_interval(weights * rng.normal(0.3, 1.0, size=80), weights)
        covered += low < 0.3 < high
    assert 88 <= covered <= 100


def loss(writer, batches):
    return validation_loss(Likelihood(writer.captioner), batches)


@pytest.fixture(scope="module")
def references(data):
    """Of 40 pictures, most of which it was trained on: the test split of this world is too small to measure by."""
    return data.captions.head(200)


def test_the_likelihood_is_the_captioners_own_loss(writer, references, cache):
    batches = CaptionBatches(references, cache, writer.tokenizer, 7)
    information = picture_information(writer.captioner, batches)
    assert information["nats_per_token_true"] == pytest.approx(loss(writer, batches), rel=1e-5)
    batches.embeddings = writer.captioner.embedding_mean.expand_as(batches.embeddings)
    assert information["nats_per_token_mean"] == pytest.approx(loss(writer, batches), rel=1e-5)
    for gain, other in (("gain", "shuffled"), ("gain_over_mean", "mean")):
        low, high = information[f"{gain}_95_interval"]
        assert information[gain] == pytest.approx(
            information[f"nats_per_token_{other}"] - information["nats_per_token_true"]
        )
        assert low < information[gain] < high


def test_the_batch_size_of_the_validation_loss_does_not_matter(writer, references, cache):
    small, large = (CaptionBatches(references, cache, writer.tokenizer, size) for size in (3, 64))
    assert loss(writer, small) == pytest.approx(loss(writer, large), rel=1e-5)


def test_both_files_are_written_and_the_control_is_worse(writer, references, cache, data, tmp_path):
    true = evaluate(writer, references, cache, tmp_path / "true", facts=data.facts)
    control = evaluate(writer, references, cache, tmp_path / "control", facts=data.facts, control="shuffled")
    for folder, metrics in (("true", true), ("control", control)):
        assert json.loads((tmp_path / folder / "metrics.json").read_text()) == metrics
        captions = pd.read_csv(tmp_path / folder / "captions.csv", keep_default_na=False)
        assert list(captions.columns) == ["image_name", "caption"]
        assert list(captions.image_name) == list(references.image_name.unique())
        each = pd.read_csv(tmp_path / folder / "by_image.csv", keep_default_na=False)
        assert captions.equals(each[["image_name", "caption"]])
        assert each.cider.mean() == pytest.approx(metrics["cider"])
        assert metrics["cider_95_interval"][0] <= metrics["cider"] <= metrics["cider_95_interval"][1]
    assert true["gain"] > 0
    assert (true["embeddings"], control["embeddings"]) == ("true", "shuffled")
    assert true["correct_shuffled"] == control["correct"] <= true["correct"]
    assert "correct_shuffled" not in control


def written(folder) -> list[str]:
    return list(pd.read_csv(folder / "captions.csv", keep_default_na=False).caption)


def test_captions_of_the_shuffled_control_are_those_of_other_pictures(writer, references, cache, tmp_path):
    evaluate(writer, references, cache, tmp_path, control="shuffled")
    names = list(references.image_name.unique())
    others = [names[i] for i in derangement(len(names), seed=0)]
    assert written(tmp_path) == writer.write(cache.rows(others))


def test_the_mean_control_has_one_caption_for_all(writer, references, cache, tmp_path):
    metrics = evaluate(writer, references, cache, tmp_path, control="mean")
    assert written(tmp_path) == writer.write(writer.captioner.embedding_mean.cpu()[None]) * 40
    assert (metrics["embeddings"], metrics["distinct_captions"]) == ("mean", 1)


def test_the_nearest_control_copies_a_caption_of_the_nearest_training_picture(writer, data, cache, tmp_path):
    held_out, training = (data.captions[data.captions.split.isin(some)] for some in (["val", "test"], ["train"]))
    metrics = evaluate(writer, held_out, cache, tmp_path, control="nearest", training=training, facts=data.facts)
    assert (metrics["copied"], metrics["embeddings"]) == (1.0, "none: a caption of the nearest training picture")
    names, known = list(held_out.image_name.unique()), list(training.image_name.unique())
    cosines = torch.nn.functional.cosine_similarity(cache.rows(names)[:, None], cache.rows(known)[None], dim=2)
    first = training.drop_duplicates("image_name").set_index("image_name").caption
    assert written(tmp_path) == [first[known[place]] for place in cosines.argmax(dim=1)]
    with pytest.raises(UserError, match="of the pictures are training pictures, such as scene-"):
        evaluate(writer, data.captions, cache, tmp_path, control="nearest", training=training)
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
        metrics = evaluate(writer, references, cache, tmp_path, judge=ClipJudge.load("tiny"), images=data.images)
    assert metrics["clip_is_the_captioners"] is True
    assert metrics["clipscore_95_interval"][0] < metrics["clipscore"] < metrics["clipscore_95_interval"][1]
    assert "clipscore" in pd.read_csv(tmp_path / "by_image.csv")


def test_without_pycocoevalcap_the_scores_are_left_out_and_it_says_so(
    writer, references, cache, data, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    metrics = evaluate(writer, references, cache, tmp_path, facts=data.facts)
    assert "cider" not in metrics
    assert metrics["not_measured"]["cider"] == "pycocoevalcap is not installed: pip install pycocoevalcap"
    assert {"gain", "correct", "words"} <= metrics.keys()


def test_a_captioner_that_was_training_is_measured_without_dropout(writer, references, cache):
    batches = CaptionBatches(references, cache, writer.tokenizer, 64)
    writer.captioner.train()
    assert loss(writer, batches) == validation_loss(Likelihood(writer.captioner), batches)
    assert writer.captioner.training
    writer.captioner.eval()


def test_one_picture_is_too_few(writer, references, cache, tmp_path):
    with pytest.raises(UserError, match="only 1 image can be evaluated, but the shuffled control needs at least 2"):
        evaluate(writer, references.head(5), cache, tmp_path)
    assert not list(tmp_path.iterdir())
