"""The app shows the explorer of the captioners that the environment names, or a page that says how to get one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.errors import UserError
from helpers.ui.voila_app import find_captioners, find_pictures, open_app

ROOT = Path(__file__).parents[2]


def test_without_a_captioner_it_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = open_app({"CLIPXGPT_CAPTIONER": "<b>nowhere"})
    assert f"{tmp_path}/&lt;b&gt;nowhere" in page.value
    assert "<b>nowhere" not in page.value
    assert "<code>make app</code>" in page.value


def test_the_captioner_of_photos_that_ships_is_the_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, missing = find_captioners({})
    assert (list(found), missing) == (["photo"], [])
    assert find_pictures(None) == {}
    monkeypatch.chdir(ROOT)
    assert "cat.jpg" in find_pictures(None)


def test_captioners_are_called_after_their_runs(finished, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("one", "two", "more/two"):
        shutil.copytree(finished.captioner, tmp_path / run / "captioner")

    def names(*places: str) -> list[str]:
        return list(find_captioners({"CLIPXGPT_CAPTIONER": os.pathsep.join(places)})[0])

    assert names("one", "two") == ["one", "two"]  # folders of runs
    assert names("two/captioner", "more/two/captioner") == ["two/captioner", "more/two/captioner"]
    named = os.pathsep.join(["one/captioner", "two/captioner", "gone"])
    note, explorer = open_app({"CLIPXGPT_CAPTIONER": named, "CLIPXGPT_PICTURES": str(data.images)}).children
    assert note.value.endswith("left out, because there is no captioner in it: gone")
    thumbs, ticks = [explorer.children[place] for place in (1, 2)]
    assert [button.tooltip for button in thumbs.children[2].children[1:]] == sorted(data.image_names())
    assert [tick.description for tick in ticks.children[1].children[0].children] == ["one", "two"]


def test_other_files_are_no_pictures_and_a_folder_that_is_none_is_refused(tmp_path):
    for name in ("a.JPG", "b.png", "c.txt", "d", "e.jp2"):
        (tmp_path / name).touch()
    assert list(find_pictures(str(tmp_path))) == ["a.JPG", "b.png", "e.jp2"]
    with pytest.raises(UserError, match="CLIPXGPT_PICTURES is nowhere, which is no folder"):
        find_pictures("nowhere")


def test_a_visitors_kernel_needs_neither_pytorch_nor_pandas():
    code = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = sys.modules["pandas"] = None  # imports of them now fail
from helpers import open_app
page = open_app({"CLIPXGPT_ADDRESS": "nobody-listens-here"})
print(page.children[1].children[2].children[1].children[1].children[0].children[0].value)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert "the process that writes captions does not answer: start the app again" in said.stdout
