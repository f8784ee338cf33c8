"""Judges are compared by how often they prefer a caption to its references."""

import json
import sys

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
        assert each["own_minus_other"] == none_shown
