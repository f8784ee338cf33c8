"""The widget, used as a person would use it."""

import base64
import io
import re
from datetime import datetime

import ipywidgets
import pytest
from PIL import Image

from helpers.models.decoding import Decoding
from helpers.models.writer import CaptionWriter
from helpers.ui.explorer import Explorer


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
    explorer.choice.upload.value = (file,)


def shown(explorer) -> Image.Image | None:
    """The picture on the page."""
    found = re.search(r'src="data:image/\w+;base64,([^"]+)"', explorer.figure.value)
    return Image.open(io.BytesIO(base64.b64decode(found[1]))) if found else None


def lines(explorer) -> list:
    """The lines of captions on the page, of all captioners."""
    return [line for group in explorer.results.children for line in group.children if hasattr(line, "children")]


def found(explorer) -> list[str]:
    """The captions on the page."""
    return [line.children[0].value for line in lines(explorer)]


def page(explorer) -> str:
    """All texts beside the picture."""
    texts = [getattr(line, "value", "") for group in explorer.results.children for line in group.children]
    return " ".join([*texts, *found(explorer), explorer.message.value])


def compare(explorer, number: int = 0) -> None:
    lines(explorer)[number].children[1].click()


def rows(explorer) -> list[list]:
    return [[entry.name, entry.captioner, entry.decoding, entry.caption.text] for entry in explorer.comparison.entries]


def test_it_begins_with_the_first_picture_and_its_caption(explorer, writer, data, cache):
    name = data.image_names()[0]
    assert shown(explorer) is not None
    assert f'alt="the picture to caption, {name}"' in explorer.figure.value
    (caption,) = writer.write(cache.rows([name]))
    assert len(found(explorer)) == 1
    assert caption in found(explorer)[0]
    assert explorer.comparison.table.value == ""
    compare(explorer)
    assert rows(explorer) == [[name, "captioner", "greedy", caption]]
    assert name in explorer.comparison.table.value


def test_the_decoding_is_folded_and_says_what_the_controls_say(explorer):
    controls = explorer.controls

    def visible() -> list:
        knobs = (controls.beams, controls.temperature, controls.top_p, controls.seed)
        return [knob for knob in knobs if knob.layout.display != "none"]

    assert controls.widget.selected_index is None
    assert (controls.decoding, visible(), controls.widget.titles) == (Decoding(), [], ("decoding: greedy",))
    controls.method.value = "beam search"
    controls.beams.value = 3
    assert (controls.decoding, visible()) == (Decoding(beams=3), [controls.beams])
    compare(explorer)
    controls.method.value = "sampling"
    controls.temperature.value, controls.top_p.value, controls.seed.value = 1.7, 0.8, 5
    controls.length.value, controls.guidance.value = 12, 1.5
    assert controls.decoding == Decoding(temperature=1.7, top_p=0.8, seed=5, max_tokens=12, guidance=1.5)
    assert visible() == [controls.temperature, controls.top_p, controls.seed]
    compare(explorer)
    words = ["3 beams", "T 1.7, top p 0.80, seed 5, guidance 1.5, at most 12 tokens"]
    assert [row[2] for row in rows(explorer)] == words
    assert controls.widget.titles == (f"decoding: {words[1]}",)


def test_all_beams_are_shown_with_how_likely_each_is_and_any_can_be_compared(explorer, writer, cache, data):
    explorer.controls.method.value, explorer.controls.beams.value = "beam search", 4
    expected = writer.candidates(cache.rows(data.image_names()[:1]), Decoding(beams=4))
    for line, candidate in zip(found(explorer), expected, strict=True):
        assert candidate.caption in line
        assert f"{candidate.probability:.0%} per token" in line
    compare(explorer, 2)
    (entry,) = explorer.comparison.entries
    assert entry.caption.text == expected[2].caption
    assert entry.caption.probability == pytest.approx(expected[2].probability, abs=1e-3)


def test_a_caption_is_no_longer_than_asked_and_than_fits(explorer, writer):
    explorer.controls.length.value = 2
    assert len(writer.tokenizer(explorer.found["captioner"].captions[0].text).input_ids) <= 2
    assert writer.captioner.longest_caption < explorer.controls.length.max
    explorer.controls.length.value = explorer.controls.length.max
    assert len(found(explorer)) == 1


def test_another_picture_is_shown_and_captioned_at_once(explorer, data, writer, cache):
    first, name = explorer.figure.value, data.image_names()[2]
    explorer.choice.thumbs[name].click()
    assert explorer.figure.value != first
    assert "clipxgpt-chosen" in explorer.choice.thumbs[name]._dom_classes
    assert "clipxgpt-chosen" not in explorer.choice.thumbs[data.image_names()[0]]._dom_classes
    assert writer.write(cache.rows([name]))[0] in found(explorer)[0]


def test_every_ticked_captioner_writes_and_a_broken_one_says_why(writer, finished, data, tmp_path):
    pictures = {name: data.images / name for name in data.image_names()[:1]}
    explorer = Explorer({"one": finished.captioner, "gone": tmp_path / "gone", "here": writer}, pictures)
    assert len(found(explorer)) == 1
    explorer.ticks["gone"].value = explorer.ticks["here"].value = True
    assert [name for name in ("one", "gone", "here") if f">{name}<" in page(explorer)] == ["one", "gone", "here"]
    assert f"{tmp_path / 'gone'} holds no captioner" in page(explorer)
    for number in range(len(lines(explorer))):
        compare(explorer, number)
    assert [row[1] for row in rows(explorer)] == ["one", "here"]
    assert len({row[3] for row in rows(explorer)}) == 1
    for tick in explorer.ticks.values():
        tick.value = False
    assert found(explorer) == []
    assert "no captioner is ticked" in page(explorer)


def test_no_caption_stands_beside_another_picture_than_its_own(explorer, writer, data, cache, monkeypatch):
    pages = []
    write = explorer.captioners.write

    def watched(*arguments):
        pages.append((found(explorer), explorer.figure.value))
        return write(*arguments)

    monkeypatch.setattr(explorer.captioners, "write", watched)
    explorer.choice.choose(data.image_names()[1])
    ((captions, figure),) = pages
    assert captions == []  # while the new picture's caption is written, the old one has gone
    assert data.image_names()[1] in figure
    upload(explorer, "broken.png", png()[:60])
    assert found(explorer) == []
    assert explorer.found == {}
    assert shown(explorer) is None


def test_an_uploaded_picture_is_captioned_and_the_first_can_be_picked_again(explorer, data):
    first = data.image_names()[0]
    for _ in range(2):  # the same file twice
        upload(explorer, "mine.png", png(size=(500, 20)))
        assert shown(explorer).size == (500, 20)
        assert "clipxgpt-chosen" not in explorer.choice.thumbs[first]._dom_classes
        compare(explorer)
        explorer.choice.thumbs[first].click()
        compare(explorer)
    assert [row[0] for row in rows(explorer)] == ["mine.png", first] * 2


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
    assert found(explorer) == []
    upload(explorer, "good.png", (data.images / data.image_names("train")[0]).read_bytes())
    assert len(found(explorer)) == 1
    assert "broken.png" not in page(explorer) + explorer.figure.value


def test_a_picture_unlike_the_training_is_said_to_be_so(finished, data):
    writer = CaptionWriter.load(finished.folder)
    explorer = Explorer(writer, {name: data.images / name for name in data.image_names("train")[:2]})
    assert "unlike" not in page(explorer)
    writer.captioner.familiarity.limit.mul_(1e-3)  # now every picture is
    explorer.caption()
    assert "is unlike those that the captioner was trained on" in page(explorer)


def test_a_name_is_text_whatever_it_contains(explorer):
    name = "<img src=x onerror=alert(1)>.png"
    upload(explorer, name, png())
    compare(explorer)
    parts = (explorer.figure, explorer.comparison.table)
    assert all("&lt;img src=x" in part.value for part in parts)
    upload(explorer, name, b"broken")
    assert "&lt;img src=x" in explorer.message.value
    assert not any("<img src=x" in part.value for part in (*parts, explorer.message))


def test_without_pictures_there_is_still_the_upload(writer):
    explorer = Explorer(writer, {})
    assert "there is no picture yet" in explorer.message.value
    upload(explorer, "mine.png", png())
    assert len(found(explorer)) == 1


def test_a_picture_that_has_gone_says_so(writer, tmp_path):
    explorer = Explorer(writer, {"gone": tmp_path / "gone.png"})
    assert explorer.choice.thumbs["gone"].description == "?"
    assert "is missing" in explorer.message.value


def test_captions_written_again_and_again_leave_no_widgets_behind(explorer):
    def alive() -> int:
        return len(ipywidgets.widgets.widget._instances)

    explorer.caption()
    before = alive()
    for _ in range(3):
        explorer.caption()
    assert alive() == before
