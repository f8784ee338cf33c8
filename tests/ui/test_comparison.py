"""The comparison as a table, as a CSV and as a picture; files are complete and lie where the page says."""

import base64
import io
import re

import pandas as pd
import pytest
from PIL import Image

from helpers.models.writer import Candidate
from helpers.ui.comparison import Comparison, Entry

HOSTILE = '<script>alert(1)</script> $x_1$ "quoted", a,b'


def entry(caption: str, name: str = "one.png", probability: float = -0.1) -> Entry:
    return Entry(name, Image.new("RGB", (600, 300), "teal"), "tiny", "greedy", Candidate(caption, probability))


@pytest.fixture
def comparison(tmp_path):
    return Comparison(tmp_path)


def link(comparison) -> tuple[str, bytes]:
    """Return the name and the content of the download that the message offers."""
    found = re.search(r'download="([^"]+)" href="data:[a-z/]+;base64,([^"]+)"', comparison.message.value)
    return found[1], base64.b64decode(found[2])


def test_the_newest_caption_comes_first_and_clear_empties_the_table(comparison):
    assert comparison.buttons.layout.display == "none"
    comparison.add(entry("A red circle."))
    comparison.add(entry("A blue square."))
    assert comparison.table.value.index("A blue square.") < comparison.table.value.index("A red circle.")
    assert comparison.buttons.layout.display != "none"
    comparison.clear.click()
    assert (comparison.entries, comparison.table.value, comparison.buttons.layout.display) == ([], "", "none")


def test_the_csv_has_a_row_per_caption_oldest_first(comparison, tmp_path):
    comparison.add(entry("A red circle."))
    comparison.add(entry(HOSTILE, "<b>.png"))
    comparison.save_csv.click()
    (file,) = tmp_path.iterdir()
    saved = pd.read_csv(file)
    assert list(saved) == ["picture", "captioner", "decoding", "caption", "probability"]
    assert list(saved.caption) == ["A red circle.", HOSTILE]
    assert list(saved.picture) == ["one.png", "<b>.png"]
    assert list(saved.probability) == [0.9048, 0.9048]
    assert str(file) in comparison.message.value
    assert link(comparison) == (file.name, file.read_bytes())


def test_the_picture_grows_with_the_table_and_takes_any_text(comparison, tmp_path):
    comparison.add(entry("A red circle."))
    first = Image.open(io.BytesIO(comparison.png())).size
    comparison.add(entry(HOSTILE * 20, "a\nb" * 60))
    comparison.save_picture.click()
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".png"
    assert Image.open(file).size == (first[0], 2 * first[1])
    assert link(comparison) == (file.name, file.read_bytes())


def test_a_table_saved_again_replaces_its_own_file(comparison, tmp_path):
    comparison.add(entry("A red circle."))
    comparison.save_csv.click()
    comparison.add(entry("A blue square."))
    comparison.save_csv.click()
    (file,) = tmp_path.iterdir()
    assert len(pd.read_csv(file)) == 2


def test_the_link_remains_if_the_file_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    comparison = Comparison(tmp_path / "file" / "inside")
    comparison.add(entry("A red circle."))
    comparison.save_csv.click()
    assert "cannot be written" in comparison.message.value
    assert link(comparison)[1] == comparison.csv()


def test_texts_are_text_whatever_they_contain(comparison):
    comparison.add(entry(HOSTILE, '"><img src=x onerror=alert(1)>.png'))
    assert "<script" not in comparison.table.value
    assert "<img src=x" not in comparison.table.value
    assert comparison.table.value.count("&lt;script&gt;") == 1
