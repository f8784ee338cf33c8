"""The comparison as a table, as a CSV and as a picture; both are downloads of the page, and no file is written."""

import base64
import io
import re

import pandas as pd
import pytest
from PIL import Image

from helpers.ui.captioners import Caption
from helpers.ui.comparison import Comparison, Entry

HOSTILE = '<script>alert(1)</script> $x_1$ "quoted", a,b'


def entry(caption: str, name: str = "one.png", probability: float = 0.9048) -> Entry:
    return Entry(name, Image.new("RGB", (600, 300), "teal"), "tiny", "greedy", Caption(caption, probability))


@pytest.fixture
def comparison(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield Comparison()
    assert list(tmp_path.iterdir()) == []


def downloads(comparison) -> dict[str, bytes]:
    """Return the files that the page offers, by the ends of their names."""
    found = re.findall(
        r'download="comparison-[0-9-]+\.(\w+)" href="data:[a-z/]+;base64,([^"]+)"', comparison.links.value
    )
    return {ending: base64.b64decode(content) for ending, content in found}


def test_the_newest_caption_comes_first_and_clear_empties_the_table(comparison):
    assert comparison.buttons.layout.display == "none"
    comparison.add(entry("A red circle."))
    comparison.add(entry("A blue square."))
    assert comparison.table.value.index("A blue square.") < comparison.table.value.index("A red circle.")
    assert comparison.buttons.layout.display != "none"
    comparison.clear.click()
    assert (comparison.entries, comparison.table.value, comparison.links.value) == ([], "", "")
    assert comparison.buttons.layout.display == "none"


def test_the_csv_has_a_row_per_caption_oldest_first(comparison):
    comparison.add(entry("A red circle."))
    comparison.add(entry(HOSTILE, "<b>.png"))
    saved = pd.read_csv(io.BytesIO(downloads(comparison)["csv"]))
    assert list(saved) == ["picture", "captioner", "decoding", "caption", "probability"]
    assert list(saved.caption) == ["A red circle.", HOSTILE]
    assert list(saved.picture) == ["one.png", "<b>.png"]
    assert list(saved.probability) == [0.9048, 0.9048]


def test_no_text_of_the_csv_is_a_formula(comparison):
    comparison.add(entry("+1", "=cmd.png"))
    saved = pd.read_csv(io.BytesIO(downloads(comparison)["csv"]), dtype=str)
    assert (saved.picture[0], saved.caption[0]) == ("'=cmd.png", "'+1")


def test_the_picture_grows_with_the_table_and_takes_any_text(comparison):
    comparison.add(entry("A red circle."))
    first = Image.open(io.BytesIO(downloads(comparison)["png"])).size
    comparison.add(entry(HOSTILE * 20, "a\nb" * 60))
    assert Image.open(io.BytesIO(downloads(comparison)["png"])).size == (first[0], 2 * first[1])


def test_texts_are_text_whatever_they_contain(comparison):
    comparison.add(entry(HOSTILE, '"><img src=x onerror=alert(1)>.png'))
    assert "<script" not in comparison.table.value
    assert "<img src=x" not in comparison.table.value
    assert comparison.table.value.count("&lt;script&gt;") == 1
