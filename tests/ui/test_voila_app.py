"""The app shows the explorer of the captioners that the environment names, or a page that says how to get one."""

import os
import shutil

import pytest

from helpers.errors import UserError
from helpers.ui.voila_app import find_pictures, open_app


def explorer_of(page):
    return page.children[1]


def options(page, description: str) -> tuple:
    (knob,) = [
        knob
        for knob in explorer_of(page).children[1].children[1].children
        if getattr(knob, "description", "") == description
    ]
    return knob.options


def test_without_a_captioner_it_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = open_app({})
    assert f"{tmp_path}/runs/tiny<" in page.value
    assert "clipxgpt train --preset tiny --out runs/tiny" in page.value
    page = open_app({"CLIPXGPT_CAPTIONER": "<b>nowhere"})
    assert "&lt;b&gt;nowhere" in page.value


def test_captioners_are_called_after_their_runs(finished, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("one", "two", "more/two"):
        shutil.copytree(finished.captioner, tmp_path / run / "captioner")
    named = os.pathsep.join(["one/captioner", "two/captioner", "gone"])
    page = open_app({"CLIPXGPT_CAPTIONER": named, "CLIPXGPT_PICTURES": str(data.images)})
    assert options(page, "captioner") == ("one", "two")
    assert options(page, "picture") == tuple(sorted(data.image_names()))
    assert page.children[0].value == "left out, because there is no captioner in it: gone"
    page = open_app({"CLIPXGPT_CAPTIONER": os.pathsep.join(["one", "two"])})  # folders of runs
    assert options(page, "captioner") == ("one", "two")
    page = open_app({"CLIPXGPT_CAPTIONER": os.pathsep.join(["two/captioner", "more/two/captioner"])})
    assert options(page, "captioner") == ("two/captioner", "more/two/captioner")
    assert options(page, "picture") == ()


def test_the_default_captioner_has_the_drawn_worlds_test_pictures(finished, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished.captioner, tmp_path / "runs" / "tiny" / "captioner")
    assert options(open_app({}), "picture") == ()
    shutil.copytree(data.images.parent, tmp_path / "data" / "drawn")
    assert options(open_app({}), "picture") == tuple(data.image_names("test"))


def test_other_files_are_no_pictures_and_a_folder_that_is_none_is_refused(tmp_path):
    for name in ("a.JPG", "b.png", "c.txt", "d", "e.jp2"):
        (tmp_path / name).touch()
    assert list(find_pictures(str(tmp_path), drawn=False)) == ["a.JPG", "b.png", "e.jp2"]
    with pytest.raises(UserError, match="CLIPXGPT_PICTURES is nowhere, which is no folder"):
        find_pictures("nowhere", drawn=False)
