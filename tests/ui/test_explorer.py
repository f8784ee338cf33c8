"""The widget, used as a person would use it."""

import base64
import io
import re
from datetime import datetime

import pandas as pd
import pytest
from PIL import Image

from helpers.models.decoding import Decoding
from helpers.models.writer import CaptionWriter
from helpers.ui.explorer import Explorer


@pytest.fixture
def explorer(writer, data, tmp_path):
    return Explorer(writer, {name: data.images / name for name in data.image_names()[:3]}, folder=tmp_path)


def png(color="red", size=(64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "png")
    return buffer.getvalue()


def upload(explorer, name: str, content: bytes) -> None:
    file = {"name": name, "type": "image/png", "size": len(content), "content": memoryview(content),
            "last_modified": datetime(2026, 1, 1)}  # fmt: skip
    explorer.upload.value = (file,)


def shown(explorer) -> Image.Image | None:
    """The picture on the page."""
    found = re.search(r'src="data:image/png;base64,([^"]+)"', explorer.picture.value)
    return Image.open(io.BytesIO(base64.b64decode(found[1]))) if found else None


def found(explorer) -> list[str]:
    """The captions on the page."""
    return [line.children[1].value for line in explorer.results.children]


def compare(explorer, number: int = 0) -> None:
    explorer.results.children[number].children[0].click()


def rows(explorer) -> pd.DataFrame:
    return explorer.comparison.frame()


def test_it_begins_with_the_first_picture_and_captions_it(explorer, writer, data, cache):
    name = data.image_names()[0]
    assert max(shown(explorer).size) == 288
    assert f'alt="the picture to caption, {name}"' in explorer.picture.value
    explorer.button.click()
    (caption,) = writer.write(cache.rows([name]))
    assert len(found(explorer)) == 1
    assert caption in found(explorer)[0]
    assert explorer.comparison.table.value == ""
    compare(explorer)
    assert rows(explorer)[["picture", "captioner", "decoding", "caption"]].values.tolist() == [
        [name, "captioner", "greedy", caption]
    ]
    assert name in explorer.comparison.table.value


def test_each_decoding_is_what_the_controls_say(explorer):
    def visible() -> list:
        knobs = (explorer.beams, explorer.temperature, explorer.top_p, explorer.seed)
        return [knob for knob in knobs if knob.layout.display != "none"]

    assert (explorer.decoding, visible()) == (Decoding(), [])
    explorer.method.value = "beam search"
    explorer.beams.value = 3
    assert (explorer.decoding, visible()) == (Decoding(beams=3), [explorer.beams])
    explorer.caption()
    compare(explorer)
    explorer.method.value = "sampling"
    explorer.temperature.value, explorer.top_p.value, explorer.seed.value = 1.7, 0.8, 5
    explorer.length.value, explorer.guidance.value = 12, 1.5
    assert explorer.decoding == Decoding(temperature=1.7, top_p=0.8, seed=5, max_tokens=12, guidance=1.5)
    assert visible() == [explorer.temperature, explorer.top_p, explorer.seed]
    explorer.caption()
    compare(explorer)
    assert list(rows(explorer).decoding) == ["3 beams", "T 1.7, top p 0.80, seed 5, guidance 1.5, at most 12 tokens"]


def test_all_beams_are_shown_with_how_likely_each_is_and_any_can_be_compared(explorer, writer, cache, data):
    explorer.method.value, explorer.beams.value = "beam search", 4
    explorer.caption()
    expected = writer.candidates(cache.rows(data.image_names()[:1]), Decoding(beams=4))
    for line, candidate in zip(found(explorer), expected, strict=True):
        assert candidate.caption in line
        assert f"{candidate.probability:.0%} per token" in line
    compare(explorer, 2)
    assert list(rows(explorer).caption) == [expected[2].caption]
    assert rows(explorer).probability[0] == pytest.approx(expected[2].probability, abs=1e-3)


def test_a_caption_is_no_longer_than_asked_and_than_fits(explorer, writer):
    assert explorer.length.max == writer.captioner.longest_caption
    explorer.length.value = 2
    explorer.caption()
    assert len(writer.tokenizer(explorer.found[0].caption).input_ids) <= 2


def test_another_picture_is_shown_and_captioned(explorer, data):
    first = explorer.picture.value
    explorer.choice.value = data.image_names()[2]
    assert explorer.picture.value != first
    explorer.caption()
    compare(explorer)
    assert rows(explorer).picture[0] == data.image_names()[2]


def test_several_captioners_are_loaded_when_they_are_used(writer, finished, data, tmp_path):
    pictures = {name: data.images / name for name in data.image_names()[:1]}
    captioners = {"one": finished.captioner, "gone": tmp_path / "gone", "here": writer}
    explorer = Explorer(captioners, pictures, folder=tmp_path)
    assert explorer.captioner.layout.display != "none"
    explorer.caption()
    assert [type(each).__name__ for each in explorer.captioners.values()] == [
        "CaptionWriter",
        "PosixPath",
        "CaptionWriter",
    ]
    compare(explorer)
    explorer.captioner.value = "gone"
    explorer.caption()
    assert f"{tmp_path / 'gone'} holds no captioner" in explorer.message.value
    assert not explorer.button.disabled
    explorer.captioner.value = "here"
    explorer.caption()
    compare(explorer)
    assert list(rows(explorer).captioner) == ["one", "here"]
    assert rows(explorer).caption.nunique() == 1


def test_an_uploaded_picture_is_captioned_and_the_first_can_be_picked_again(explorer, data):
    first = explorer.choice.value
    for _ in range(2):  # the same file twice
        upload(explorer, "mine.png", png(size=(500, 20)))
        assert shown(explorer).size == (288, 12)
        explorer.caption()
        compare(explorer)
        explorer.choice.value = first
        explorer.caption()
        compare(explorer)
    assert list(rows(explorer).picture) == ["mine.png", first] * 2


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "is empty"), (b"no picture", "no picture"), (png()[:60], "read")],
    ids=["empty", "text", "cut"],
)
def test_a_broken_upload_says_why_and_captions_nothing(explorer, data, content, why):
    upload(explorer, "broken.png", content)
    assert "broken.png" in explorer.message.value
    assert why in explorer.message.value
    assert shown(explorer) is None
    explorer.caption()
    assert found(explorer) == []
    assert "pick or upload one" in explorer.message.value
    upload(explorer, "good.png", (data.images / data.image_names("train")[0]).read_bytes())
    explorer.caption()
    assert len(found(explorer)) == 1
    assert explorer.message.value == '<span role="status"></span>'


def test_a_picture_unlike_the_training_is_said_to_be_so(finished, data, tmp_path):
    writer = CaptionWriter.load(finished.folder)
    explorer = Explorer(writer, {name: data.images / name for name in data.image_names("train")[:2]}, folder=tmp_path)
    explorer.button.click()
    assert "unlike" not in explorer.message.value
    writer.captioner.familiarity.limit.mul_(1e-3)  # now every picture is
    explorer.button.click()
    assert "is unlike those that the captioner was trained on" in explorer.message.value


def test_a_name_is_text_whatever_it_contains(explorer):
    name = "<img src=x onerror=alert(1)>.png"
    upload(explorer, name, png())
    explorer.caption()
    compare(explorer)
    parts = (explorer.picture, explorer.heading, explorer.comparison.table)
    assert all("&lt;img src=x" in part.value for part in parts)
    upload(explorer, name, b"broken")
    assert "&lt;img src=x" in explorer.message.value
    assert not any("<img src=x" in part.value for part in (*parts, explorer.message))


def test_without_pictures_there_is_still_the_upload(writer):
    explorer = Explorer(writer, {})
    explorer.caption()
    assert "pick or upload one" in explorer.message.value
    upload(explorer, "mine.png", png())
    explorer.caption()
    assert len(found(explorer)) == 1


def test_a_picture_that_has_gone_says_so(writer, tmp_path):
    explorer = Explorer(writer, {"gone": tmp_path / "gone.png"})
    assert "is missing" in explorer.message.value
