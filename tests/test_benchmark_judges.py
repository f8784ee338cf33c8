"""Judges are compared by how often they prefer a caption to its references."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import judges


def test_a_preference_is_the_share_of_references_that_fit_less_well():
    fits = torch.tensor([0.5, 0.2, 0.3])
    references = [torch.tensor([0.4, 0.6]), torch.tensor([0.2]), torch.tensor([0.1, 0.2, 0.3, 0.4])]
    assert judges.preferences(fits, references) == pytest.approx([0.5, 0.5, 2.5 / 4])


def test_the_same_judge_under_two_names_flatters_nobody(finished, data, tmp_path, monkeypatch, capsys):
    captions, out = data.images.with_name("results.csv"), tmp_path / "out.json"
    world = ["--images", data.images, "--captions", captions, "--out", out]
    eyes = ["--eyes", "own", "tiny", f"{finished.folder},{finished.captioner}", "--eyes", "other", "tiny", "-"]
    monkeypatch.setattr(sys, "argv", ["judges", *map(str, [*eyes, *world])])
    judges.main()
    assert "captioners that see by own" in capsys.readouterr().out
    results = json.loads(out.read_text())
    assert [(row["run"], row["judges_eyes"]) for row in results["table"]] == [
        (str(run), eyes) for eyes in ("own", "other") for run in (finished.folder, finished.captioner)
    ]
    (found,) = results["captions"].values()
    assert found["own"] == found["other"]
    assert found["own"]["95_interval"][0] <= found["own"]["preferred"] <= found["own"]["95_interval"][1]
    for each in (found, found["wrong_captions"]):
        none_shown = {"difference": 0.0, "95_interval": [0.0, 0.0], "verdict": "no difference shown"}
        assert each["own_minus_other"] == none_shown | {"p": 1.0, "p_holm": 1.0}


def test_captions_of_one_picture_stay_together():
    """Three captioners that write the same are no more evidence than one."""
    view, false = np.random.default_rng(0).random(40), np.arange(40) < 10
    once, thrice = (judges.preferred([view] * times, [false] * times) for times in (1, 3))
    assert once.value == pytest.approx(thrice.value) == pytest.approx(view[:10].mean())
    assert once.interval == pytest.approx(thrice.interval)


def test_in_the_mean_each_encoder_counts_as_much():
    many, one = (judges.preferred([np.full(30, share)] * times, [np.ones(30, dtype=bool)] * times)
                 for share, times in ((0.9, 3), (0.1, 1)))  # fmt: skip
    assert judges.mean_of([many, one]).value == pytest.approx(0.5)


def test_a_verdict_is_taken_back_if_it_is_one_of_many_comparisons():
    differences = [{"p": 0.03, "verdict": "higher"}, {"p": 0.001, "verdict": "lower"}, {"p": 0.5, "verdict": "x"}]
    judges.correct_for_all(differences)
    assert [each["p_holm"] for each in differences] == [0.06, 0.003, 0.5]
    assert [each["verdict"] for each in differences] == ["no difference shown", "lower", "no difference shown"]
