"""The widget, worked as a hand would work it."""

import io
from datetime import datetime

import pytest
from PIL import Image

from helpers.explorer import Explorer
from helpers.writer import Decoding


@pytest.fixture
def explorer(writer, data):
    return Explorer(writer, {name: data.images / name for name in data.image_names()[:3]})


def png(color="red", size=(64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "png")
    return buffer.getvalue()


def upload(explorer, name: str, content: bytes) -> None:
    file = {"name": name, "type": "image/png", "size": len(content), "content": memoryview(content),
            "last_modified": datetime(2026, 1, 1)}  # fmt: skip
    explorer.upload.value = (file,)


def shown(explorer) -> Image.Image:
    return Image.open(io.BytesIO(explorer.picture.value))


def test_it_begins_with_the_first_picture_and_captions_it(explorer, writer, data, cache):
    name = data.image_names()[0]
    assert max(shown(explorer).size) == 256
    explorer.button.click()
    assert explorer.rows == [(name, "greedy", writer.write(cache.rows([name]))[0])]
    assert name in explorer.table.value


def test_each_decoding_is_what_the_controls_say(explorer):
    def visible() -> list:
        knobs = (explorer.beams, explorer.temperature, explorer.top_p, explorer.seed)
        return [knob for knob in knobs if knob.layout.display != "none"]

    assert (explorer.decoding, visible()) == (Decoding(), [])
    explorer.method.value = "beam search"
    explorer.beams.value = 3
    assert (explorer.decoding, visible()) == (Decoding(beams=3), [explorer.beams])
    explorer.caption()
    explorer.method.value = "sampling"
    explorer.temperature.value, explorer.top_p.value, explorer.seed.value = 1.7, 0.8, 5
    assert explorer.decoding == Decoding(temperature=1.7, top_p=0.8, seed=5)
    assert visible() == [explorer.temperature, explorer.top_p, explorer.seed]
    explorer.caption()
    assert [row[1] for row in explorer.rows] == ["3 beams", "T 1.7, top p 0.80, seed 5"]


def test_another_picture_is_shown_and_captioned(explorer, data):
    first = explorer.picture.value
    explorer.choice.value = data.image_names()[2]
    assert explorer.picture.value != first
    explorer.caption()
    assert explorer.rows[0][0] == data.image_names()[2]


def test_an_uploaded_picture_is_captioned_and_the_first_can_be_picked_again(explorer, data):
    first = explorer.choice.value
    upload(explorer, "mine.png", png(size=(500, 20)))
    assert shown(explorer).size == (256, 10)
    explorer.caption()
    explorer.choice.value = first
    explorer.caption()
    assert [row[0] for row in explorer.rows] == ["mine.png", first]


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "is empty"), (b"no picture", "no picture"), (png()[:60], "read")],
    ids=["empty", "text", "cut"],
)
def test_a_broken_upload_says_why_and_captions_nothing(explorer, content, why):
    upload(explorer, "broken.png", content)
    assert "broken.png" in explorer.message.value
    assert why in explorer.message.value
    assert explorer.picture.value == b""
    explorer.caption()
    assert explorer.rows == []
    assert "pick or upload one" in explorer.message.value
    upload(explorer, "good.png", png())
    explorer.caption()
    assert len(explorer.rows) == 1
    assert explorer.message.value == "<i></i>"


def test_a_name_is_text_whatever_it_contains(explorer):
    name = "<img src=x onerror=alert(1)>.png"
    upload(explorer, name, png())
    explorer.caption()
    assert "&lt;img src=x" in explorer.table.value
    upload(explorer, name, b"broken")
    assert "&lt;img src=x" in explorer.message.value
    assert "<img" not in explorer.table.value + explorer.message.value


def test_the_newest_caption_comes_first_and_clear_empties_the_table(explorer):
    explorer.caption()
    explorer.method.value = "beam search"
    explorer.caption()
    assert explorer.table.value.index("5 beams") < explorer.table.value.index("greedy")
    explorer.clear.click()
    assert (explorer.rows, explorer.table.value) == ([], "")


def test_without_pictures_there_is_still_the_upload(writer):
    explorer = Explorer(writer, {})
    explorer.caption()
    assert "pick or upload one" in explorer.message.value
    upload(explorer, "mine.png", png())
    explorer.caption()
    assert len(explorer.rows) == 1


def test_a_picture_that_has_gone_says_so(writer, tmp_path):
    explorer = Explorer(writer, {"gone": tmp_path / "gone.png"})
    assert "is missing" in explorer.message.value
