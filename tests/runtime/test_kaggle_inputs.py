"""Kaggle's inputs, in all mount layouts seen so far."""

from pathlib import Path

import pytest

from helpers.errors import UserError
from helpers.runtime import kaggle as inputs
from helpers.runtime.kaggle import find_input, search_inputs


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """A folder that stands for /kaggle/input."""
    folder = tmp_path / "input"
    folder.mkdir()
    monkeypatch.setattr(inputs, "INPUTS", folder)
    return folder


@pytest.mark.parametrize("layout", ["photos", "datasets/someone/photos", "notebooks/someone/photos"])
def test_found_in_every_layout(mounted, layout):
    (mounted / layout / "flickr30k_images" / "flickr30k_images").mkdir(parents=True)
    (mounted / layout / "flickr30k_images" / "results.csv").touch()
    assert find_input("flickr30k_images/results.csv") == mounted / layout / "flickr30k_images" / "results.csv"
    assert find_input("flickr30k_images/flickr30k_images").is_dir()


def test_what_is_here_goes_before_the_inputs(mounted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path, mounted / "some"):
        (place / "runs").mkdir(parents=True)
    assert find_input("runs") == Path("runs")


def test_all_are_found_the_nearest_first_and_none_within_another(mounted):
    for place in ("notebooks/someone/later", "earlier", "earlier/run/more"):
        (mounted / place / "run").mkdir(parents=True)
    assert search_inputs("run") == [mounted / "earlier" / "run", mounted / "notebooks/someone/later/run"]


def test_nothing_and_two_things_are_refused_with_the_way_out(mounted):
    (mounted / "weights").mkdir()
    with pytest.raises(UserError, match=r"results.csv is neither here nor in .*input \(attached: weights\): attach"):
        find_input("results.csv")
    for place in ("a", "b"):
        (mounted / place).mkdir()
        (mounted / place / "results.csv").touch()
    with pytest.raises(UserError, match=r"results.csv may be .*a/results.csv or .*b/results.csv: give more"):
        find_input("results.csv")


def test_without_inputs_a_name_is_a_path(monkeypatch, tmp_path):
    monkeypatch.setattr(inputs, "INPUTS", tmp_path / "none")
    assert find_input("no/such") == Path("no/such")
    assert search_inputs("no/such") == []


def test_an_absolute_path_is_not_searched(mounted):
    (mounted / "x").mkdir()
    assert search_inputs(mounted / "x") == []
