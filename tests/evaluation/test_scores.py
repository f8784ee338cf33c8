"""COCO's scores, checked against pycocoevalcap's own, by hand, on any text and without Java; and their summary."""

import json
import math
import sys

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.evaluation.bootstrap import RESAMPLES, Score
from helpers.evaluation.coco import Meteor, bleu, cider, to_sum
from helpers.evaluation.scores import measure, summary_lines
from helpers.words.ptb_tokenizer import PTB, ptb_words, stand_in, why_no_java

NAMES = {"bleu_1": "Bleu_1", "bleu_2": "Bleu_2", "bleu_3": "Bleu_3", "bleu_4": "Bleu_4", "meteor": "METEOR",
         "rouge_l": "ROUGE_L", "cider": "CIDEr"}  # fmt: skip
CAPTIONS, REFERENCES = ["A cat sat.", "dogs run"], [["a cat sat down"], ["The dogs run!"]]
WILD = [
    "", " ", "a", "\n", "two\nlines", "a ||| b", '"', "''", 'a "big" dog', "\u2028\x85\x0b\x1c", "café — naïve 犬 🐕",
    "<|endoftext|>", "\ud800", "a\x00b", "dog " * 1000, "(a) [b] {c}", "U.S. 3.5 $5 it's don't", "... --", "\xa0",
    "\ufeff", "-lrb-", "SCORE ||| EVAL", "a\tb\r\n",
]  # fmt: skip

needs_java = pytest.mark.skipif(why_no_java() is not None, reason=f"{why_no_java()}")
pytest.importorskip("pycocoevalcap")


@pytest.fixture
def no_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture(scope="module")
def coco(shared_data) -> dict:
    """126 captions of COCO's images with their references, and what pycocoevalcap gives them."""
    return json.loads((shared_data.parent / "metrics" / "coco-val2014-fakecap-126.json").read_text())


@pytest.fixture(scope="module")
def meteor():
    if reason := why_no_java():
        pytest.skip(reason)
    with Meteor() as process:
        yield process


def texts_of(coco: dict) -> tuple[list[str], list[list[str]]]:
    names = [str(name) for name in coco["image_ids"]]
    return [coco["hypotheses"][name] for name in names], [coco["references"][name] for name in names]


@needs_java
def test_coco_scores_to_four_decimals(coco):
    captions, references = texts_of(coco)
    scores = measure(captions, references, training=captions[:1])
    assert scores.tokenizer == PTB
    assert scores.not_measured == {}
    for ours, theirs in NAMES.items():
        assert scores.measured[ours].value == pytest.approx(coco["corpus"][theirs], abs=5e-5)
        assert scores.measured[ours].per_image == pytest.approx(np.array(coco["per_image"][theirs]), abs=5e-5)
        low, high = scores.measured[ours].interval
        assert low < scores.measured[ours].value < high
    assert scores.measured["copied"].value == pytest.approx(captions.count(captions[0]) / 126)


@needs_java
def test_the_words_are_those_of_cocos_tokenizer(coco):
    captions, references = texts_of(coco)
    names = [str(name) for name in coco["image_ids"]]
    assert ptb_words(captions).texts == [coco["hypotheses_ptb"][name] for name in names]
    raw = [text for texts in references for text in texts]
    wanted = [words for name in names for words in coco["references_ptb"][name]]
    assert ptb_words(raw).texts == wanted
    assert np.mean([stand_in(text) == words for text, words in zip(raw, wanted, strict=True)]) > 0.99


@needs_java
@pytest.mark.parametrize(
    ("which", "published"),
    [
        ("good", {"bleu_1": 0.6667, "meteor": 0.3444, "rouge_l": 0.4280, "cider": 0.5637}),
        ("bad", {"bleu_1": 0.4815, "meteor": 0.1861, "rouge_l": 0.3121, "cider": 0.2790}),
    ],
)
def test_the_example_of_clipscores_authors(shared_data, meteor, which, published):
    folder = shared_data.parent / "metrics" / "clipscore-example"
    captions, references = (json.loads((folder / f"{n}.json").read_text()) for n in (f"{which}_captions", "refs"))
    scores = measure(list(captions.values()), list(references.values()), meteor=False)
    words, known = ptb_words(list(captions.values())).texts, [ptb_words(texts).texts for texts in references.values()]
    found = {name: score.value for name, score in scores.measured.items()}
    found["meteor"] = meteor.scores(meteor.counts(words, known).sum(axis=0, keepdims=True))[0]
    assert {name: round(found[name], 4) for name in published} == pytest.approx(published, abs=1e-4)


def test_by_hand(no_java):
    scores = measure(CAPTIONS, REFERENCES, training=["Dogs run!", "a cow"])
    value = {name: score.value for name, score in scores.measured.items()}
    assert value["bleu_1"] == pytest.approx(math.exp(1 - 7 / 5))  # every word is right, but 5 stand for 7
    assert value["bleu_2"] == pytest.approx(math.exp(1 - 7 / 5))
    rouge = [2.44 * 0.75 / (0.75 + 1.44), 2.44 * (2 / 3) / (2 / 3 + 1.44)]
    assert scores.measured["rouge_l"].per_image == pytest.approx(rouge)
    # Each n-gram is of one image, so all weigh the same: 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, no four; one pair
    # less than the reference has costs exp(-1/72).
    first = 10 * (3 / math.sqrt(12) + 2 / math.sqrt(6) + 1 / math.sqrt(2)) / 4 * math.exp(-1 / 72)
    assert scores.measured["cider"].per_image[0] == pytest.approx(first)
    assert (value["words"], value["copied"]) == (2.5, 0.5)
    assert scores.counts == {"distinct_captions": 2, "vocabulary": 5, "distinct_1": 1.0, "distinct_2": 1.0}


def test_without_java_it_says_what_is_missing(no_java):
    scores = measure(CAPTIONS, REFERENCES)
    assert "a stand-in for Penn Treebank" in scores.tokenizer
    assert "Java is not installed" in scores.tokenizer
    assert scores.not_measured["meteor"] == "Java is not installed, or not on the PATH"
    assert scores.not_measured["copied"] == "no training captions among the references"
    assert "  METEOR not measured: Java is not installed, or not on the PATH" in summary_lines(scores.as_json())


def test_a_java_that_does_not_run_is_none(monkeypatch, tmp_path):
    (tmp_path / "java").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert why_no_java().startswith("java does not run (")
    assert ptb_words(["A dog."]).texts == ["a dog"]


def test_without_pycocoevalcap_the_rest_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    scores = measure(CAPTIONS, REFERENCES)
    assert set(scores.measured) == {"words"}
    assert scores.not_measured["cider"] == "pycocoevalcap is not installed: pip install pycocoevalcap"


wild = st.one_of(st.sampled_from(WILD), st.text(max_size=30))
quick = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(st.lists(st.tuples(wild, st.lists(wild, min_size=1, max_size=3)), min_size=2, max_size=6))
def test_any_text_has_scores_between_their_bounds(no_java, pairs):
    captions, references = map(list, zip(*pairs, strict=True))
    scores = measure(captions, references, training=references[0])
    for name, score in scores.measured.items():
        top = {"cider": 10, "words": 1010}.get(name, 1)
        for values in (score.per_image, score.resampled, [score.value]):
            assert np.isfinite(values).all()
            assert np.min(values) >= 0
            assert np.max(values) <= top + 1e-9


@needs_java
def test_any_text_stays_in_its_line(capfd):
    around = [text for wild in WILD for text in (wild, "a dog runs")]
    texts = ptb_words(around).texts
    assert texts[1::2] == ["a dog runs"] * len(WILD)
    assert texts[0] == texts[2] == ""
    assert len(texts[2 * WILD.index("dog " * 1000)].split()) == 1000
    assert texts[2 * WILD.index("café — naïve 犬 🐕")] == "café naïve 犬"  # it knows no new Unicode
    assert capfd.readouterr() == ("", "")


@settings(deadline=None, max_examples=5)
@given(texts=st.lists(wild, min_size=1, max_size=40))
@needs_java
def test_any_text_keeps_its_place(texts):
    tokenized = ptb_words(texts)
    assert (len(tokenized.texts), tokenized.tokenizer) == (len(texts), PTB)


def test_meteor_on_any_text_and_its_counts_add_up(meteor):
    captions = [" ".join(text.split()[:100]) for text in ptb_words(WILD).texts]  # "dog" 1,000 times takes it minutes
    counts = meteor.counts(captions, [["a dog runs", text] for text in captions])
    scores = meteor.scores(counts)
    assert len(scores) == len(WILD)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores[WILD.index('a "big" dog')] == pytest.approx(1, abs=0.05)
    assert meteor.scores(counts.sum(axis=0, keepdims=True))[0] <= scores.max()


@needs_java
def test_meteors_process_ends(meteor):
    def running() -> set[int]:
        return {child.pid for child in psutil.Process().children(recursive=True)}

    before = running()
    with Meteor() as process:
        (ours,) = running() - before
        psutil.Process(ours).kill()
        with pytest.raises(ChildProcessError, match="METEOR's process has ended"):
            process.counts(["a"], [["a"]])
    assert running() == before


def test_a_resample_is_scored_like_a_corpus_of_its_images():
    rng = np.random.default_rng(1)
    words = ["a", "dog", "cat", "runs", "sits", "on", "the", "red"]
    captions, references = (
        [" ".join(rng.choice(words, size=rng.integers(1, 9))) for _ in range(12)] for _ in range(2)
    )  # fmt: skip
    references = [[reference] for reference in references]
    chosen = np.random.default_rng(0).integers(12, size=12)
    again = bleu([captions[i] for i in chosen], [references[i] for i in chosen])
    for name, score in bleu(captions, references).items():
        assert score.resampled[0] == pytest.approx(again[name].value)
        assert len(score.resampled) == RESAMPLES
    score = cider(captions, references)  # document frequencies stay those of all references
    assert score.resampled[0] == pytest.approx(score.per_image[chosen].mean())


def test_a_difference_is_paired():
    rng = np.random.default_rng(0)
    hard = rng.normal(0.5, 0.3, size=200)  # how hard an image is varies far more than two captioners differ
    one, two = Score.mean(hard + 0.02), Score.mean(hard + rng.normal(0, 0.01, size=200))
    assert one.minus(two)["verdict"] == "higher"
    assert two.minus(one)["verdict"] == "lower"
    assert one.minus(one) == {"difference": 0.0, "95_interval": [0.0, 0.0], "verdict": "no difference shown"}
    assert one.interval[0] < two.value < one.interval[1]


def test_an_image_without_a_value_is_left_out_of_the_mean():
    score = Score.mean(np.array([1.0, np.nan, 3.0]))
    assert score.value == 2.0
    assert score.interval == (1.0, 3.0)


@needs_java
def test_meteor_of_a_corpus_is_pycocoevalcaps_also_if_captions_equal_a_reference(meteor):
    from pycocoevalcap.meteor.meteor import Meteor as Theirs

    known = [["a dog runs on the beach", "the dog is running"], ["two men play soccer in the park", "people play"],
             ["a red car is parked"], ["a dog is running on a beach"]]  # fmt: skip
    written = [known[0][0], "two men play football in a park", "a red car", known[3][0]]
    their = Theirs()
    corpus, each = their.compute_score(dict(enumerate(known)), {row: [caption] for row, caption in enumerate(written)})
    counts = meteor.counts(written, known)
    assert meteor.scores(to_sum(counts).sum(axis=0, keepdims=True))[0] == pytest.approx(corpus, abs=1e-4)
    assert meteor.scores(counts) == pytest.approx(each, abs=1e-4)
    assert meteor.scores(counts.sum(axis=0, keepdims=True))[0] < corpus - 0.005  # the sum of all chunks is too low


def test_meteor_of_a_corpus_is_no_mean(meteor):
    captions, references = ["a dog runs fast", "cat"], [["a dog runs fast"], ["a red cat sits on the mat"]]
    counts = meteor.counts(captions, references)
    corpus = meteor.scores(counts.sum(axis=0, keepdims=True))[0]
    assert abs(corpus - meteor.scores(counts).mean()) > 0.01


INFORMATION = {
    "without_picture": "the language model alone (tiny, before the training)",
    "picture_tells_per_caption": 8.306, "picture_tells_per_caption_95_interval": [8.187, 8.42],
    "wrong_picture_costs_per_caption": 33.5, "wrong_picture_costs_per_caption_95_interval": [32.88, 34.13],
}  # fmt: skip


def test_the_summary_says_whether_the_picture_helps(no_java):
    metrics = measure(CAPTIONS, REFERENCES).as_json() | INFORMATION
    assert summary_lines(metrics)[-1] == (
        "the picture helps: in nats per reference caption, its own picture tells 8.31 [8.187, 8.420] beyond what is "
        "known by the language model alone (tiny, before the training), and another picture in its place costs 33.50 "
        "[32.880, 34.130]"
    )
    for name in ("picture_tells", "wrong_picture_costs"):
        last = summary_lines(metrics | {f"{name}_per_caption_95_interval": [-0.1, 0.9]})[-1]
        assert last.startswith("no evidence that the picture helps: in nats per reference caption, ")
        assert last.endswith("; both 95 % intervals must lie above 0")
    assert not any("helps" in line for line in summary_lines(measure(CAPTIONS, REFERENCES).as_json()))


def test_the_summary_says_once_why_scores_are_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    lines = summary_lines(measure(CAPTIONS, REFERENCES).as_json())
    group = lines.index("Words shared with the references")
    assert lines[group + 1] == (
        "  BLEU-1, BLEU-2, BLEU-3, BLEU-4, METEOR, ROUGE-L, CIDEr not measured: pycocoevalcap is not installed: "
        "pip install pycocoevalcap"
    )
    assert lines[group + 2] == "Variety"


def test_the_summary_tells_counts_apart_from_nothing_to_tell():
    metrics = measure(CAPTIONS, REFERENCES, meteor=False).as_json()
    metrics |= {
        "images": 2,
        "embeddings": "true",
        "images_without_embedding": 0,
        "pictures_not_read": {"a.jpg": "it is broken"},
    }
    lines = summary_lines(metrics)
    assert f"  {'pictures':<30}2" in lines
    assert f"  {'embeddings':<30}the pictures' own" in lines
    assert f"  {'pictures that cannot be read':<30}1, such as a.jpg: it is broken" in lines
    assert not any("no embedding" in line for line in lines)
