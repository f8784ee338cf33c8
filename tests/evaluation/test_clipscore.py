"""CLIPScore: its formula, the CLIP that judges, and the warning about the captioner's own CLIP."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from helpers.data.images import open_picture
from helpers.errors import UserError
from helpers.evaluation.clipscore import PROMPT, ClipJudge, add_clip_scores, clipscore, refclipscore
from helpers.evaluation.scores import measure
from helpers.models.writer import CaptionWriter
from helpers.runtime.model_folders import TINY


@pytest.fixture(scope="module")
def judge() -> ClipJudge:
    return ClipJudge.load("tiny")


@pytest.fixture(scope="module")
def some(data) -> tuple[list[str], list[str], list[list[str]]]:
    """Twelve pictures: their names, a caption of each, and its other references."""
    texts = data.captions.groupby("image_name", sort=False).caption.apply(list)[:12]
    return list(texts.index), [known[0] for known in texts], [known[1:] for known in texts]


def scored(judge, images, some, own=None):
    names, written, references = some
    return add_clip_scores(
        measure(written, references), judge, images=images, names=names, written=written, references=references, own=own
    )


@pytest.fixture(autouse=True)
def no_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_the_formula():
    assert clipscore(np.array([0.4, 0.0, -0.3])) == pytest.approx([1.0, 0.0, 0.0])
    assert refclipscore(np.array([1.0, 1.0, 0.0, 0.5]), np.array([0.5, -0.2, 0.0, 0.5])) == pytest.approx(
        [2 * 0.5 / 1.5, 0.0, 0.0, 0.5]
    )
    assert np.isnan(refclipscore(np.array([np.nan]), np.array([0.5]))).all()


def test_it_is_the_cosine_of_clips_own_forward(judge, data, some):
    names, captions, _ = some
    scores = scored(judge, data.images, some)
    clip = CLIPModel.from_pretrained(TINY / "clip").eval()
    for row in range(3):
        pixels = judge.clip.pixel_values([open_picture(data.images / names[row])])
        ids = judge.tokenizer(PROMPT + captions[row], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            output = clip(input_ids=ids, pixel_values=pixels)
        cosine = (output.text_embeds @ output.image_embeds.T).item()
        assert scores.measured["clipscore"].per_image[row] == pytest.approx(2.5 * max(cosine, 0), abs=1e-5)


def test_right_captions_beat_wrong_ones(judge, data, some):
    names, captions, references = some
    right = scored(judge, data.images, some)
    wrong = scored(judge, data.images, (names, captions[1:] + captions[:1], references))
    assert right.minus(wrong)["clipscore"]["verdict"] == "higher"
    assert right.minus(wrong)["refclipscore"]["verdict"] == "higher"
    assert right.notes == {"clip": "tiny", "clip_is_the_captioners": None, "pictures_not_read": {}}


def test_a_warning_says_that_the_judge_is_the_captioners_own_clip(judge, data, some, tiny_clip):
    own = judge.weights_sha256
    with pytest.warns(UserWarning, match="by tiny, the captioner's own CLIP, which has the same blind spots"):
        assert scored(judge, data.images, some, own=own).notes["clip_is_the_captioners"] is True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scored(judge, data.images, some, own="another").notes["clip_is_the_captioners"] is False


def test_a_captioner_in_float16_has_the_judges_eyes_too(judge, writer, data, some, tmp_path):
    writer.save(tmp_path, half=True)
    encoder = CaptionWriter.load(tmp_path).clip()
    exact = encoder.fingerprint()["weights_sha256"]  # as in its cache, by which a captions file is known
    assert exact != judge.weights_sha256
    for own in (encoder.rounded_sha256, exact, writer.clip().rounded_sha256):
        with pytest.warns(UserWarning, match="the captioner's own CLIP"):
            assert scored(judge, data.images, some, own=own).notes["clip_is_the_captioners"] is True
    half = replace(judge, clip=encoder)
    with pytest.warns(UserWarning, match="the captioner's own CLIP"):
        assert scored(half, data.images, some, own=writer.clip().rounded_sha256).notes["clip_is_the_captioners"] is True


def test_a_picture_that_cannot_be_read_has_no_score_and_is_named(judge, data, some, tmp_path):
    names, captions, references = some
    some = ["gone.png", *names[1:]], captions, references
    scores = scored(judge, data.images, some)
    assert list(scores.notes["pictures_not_read"]) == ["gone.png"]
    assert np.isnan(scores.measured["clipscore"].per_image).tolist() == [True] + [False] * 11
    assert 0 < scores.measured["refclipscore"].value < 2.5
    with pytest.raises(UserError, match=r"has none of the 12 pictures to score, such as gone\.png"):
        scored(judge, tmp_path, some)


@pytest.mark.parametrize("caption", ["", "dog " * 1000, "<|endoftext|>", "\n", "犬 🐕"])
def test_any_caption_is_judged(judge, data, some, caption):
    names, _, references = some
    score = scored(judge, data.images, (names[:2], [caption] * 2, references[:2])).measured["clipscore"]
    assert np.isfinite(score.per_image).all()


def test_a_clip_without_a_tokenizer(tiny_clip):
    with pytest.raises(UserError, match="tokens that does not fit its text tower of 99; give a "):
        ClipJudge.load(tiny_clip)
