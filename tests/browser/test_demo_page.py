"""The page that captions in the browser writes what Python writes, sends nothing, and works without a network."""

import functools
import http.server
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers.data.images import open_picture
from helpers.errors import UserError
from helpers.export.export import export_captioner
from helpers.export.pictures import prepare
from helpers.export.web_page import build_page, fetch_runtime
from helpers.export.writer import OnnxWriter
from helpers.models.decoding import Decoding
from helpers.models.writer import CaptionWriter

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "notebooks" / "photos"
MOST_BYTES = 30_000_000


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "photo"
    export_captioner(ROOT / "helpers" / "photo", folder)
    return folder


@pytest.fixture(scope="module")
def writer(exported) -> OnnxWriter:
    """The same captioner in Python, with the same weights."""
    return OnnxWriter.load(exported / "int8")


@pytest.fixture(scope="module")
def temple(writer) -> str:
    """Python's caption of one photo."""
    return writer.write(writer.embed([open_picture(PHOTOS / "temple.jpg")]), Decoding(beams=3))[0]


@pytest.fixture(scope="module")
def page_folder(exported, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    try:
        shutil.copy(fetch_runtime(ROOT / "build"), folder)
    except UserError as error:
        pytest.skip(str(error))
    sizes = build_page(exported, folder / "demo", PHOTOS)
    assert sum(sizes.values()) <= MOST_BYTES
    return folder / "demo"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A handler that prints nothing."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def host(page_folder):
    """A static host of the page, as (server, address)."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(page_folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def opened(open_page, host):
    """The page with its captioner, and the trouble that it had so far."""
    page, trouble = open_page()
    page.on("console", lambda message: trouble.append(f"console: {message.text}"))
    page.goto(host[1])
    page.locator("#loading").wait_for(state="hidden")
    return page, trouble


def caption(page, file: Path | dict) -> str | None:
    """Give the page a file; return its caption, or None if it says that there can be none."""
    page.locator("#file").set_input_files(file)
    page.locator("#result[aria-busy=false] #caption:not(:empty), #status.wrong").first.wait_for()
    return None if page.locator("#status.wrong").count() else page.locator("#caption").text_content()


def test_the_licensed_photos_get_pythons_captions(opened, writer):
    page, trouble = opened
    for path in sorted(PHOTOS.glob("*.jpg")):
        seen = writer.embed([open_picture(path)])
        assert caption(page, path) == writer.write(seen, Decoding(beams=3))[0], path.name
        assert page.locator("#strange").is_visible() == writer.unlike_training(seen)[0], path.name
        others = page.locator("#others li").all_text_contents()
        assert len({page.locator("#caption").text_content(), *others}) == 3
    assert trouble == []


def test_photos_of_flickr8k_get_pythons_captions(opened, writer, shared_data):
    page, trouble = opened
    splits = pd.read_csv(shared_data / "flickr8k" / "splits.csv")
    names = splits[splits.split == "val"].image_name.drop_duplicates().head(50)
    paths = [shared_data / "flickr8k" / "Images" / name for name in names]
    expected = [writer.write(writer.embed([open_picture(path)]), Decoding(beams=3))[0] for path in paths]
    found = [caption(page, path) for path in paths]
    different = [triple for triple in zip(names, expected, found, strict=True) if triple[1] != triple[2]]
    assert len(different) <= 2, different
    pytorch = CaptionWriter.load("photo")
    expected = pytorch.write(pytorch.embed([open_picture(path) for path in paths]), Decoding(beams=3))
    different = [triple for triple in zip(names, expected, found, strict=True) if triple[1] != triple[2]]
    assert len(different) <= 4, different  # the smaller weights change some of them; 2 when this was written
    assert trouble == []


def drawn(width: int, height: int, mode: str = "RGB") -> Image.Image:
    shape = (height // 8, width // 8, len(mode))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), mode)
    return noise.resize((width, height), Image.Resampling.BICUBIC)


PREPARED = """async (name) => {
  const { ready, decode, prepare, readable } = await import("./demo.js"), { settings } = await ready;
  const bitmap = await decode(await (await fetch(name)).blob());
  return Array.from(prepare(readable(bitmap), settings.pictures));
}"""


@pytest.mark.parametrize("kind", ["wide", "small", "turned", "transparent", "large"])
def test_pictures_are_prepared_as_in_python(opened, writer, page_folder, kind):
    size = {"wide": (500, 200), "small": (160, 120), "large": (4000, 3000)}.get(kind, (500, 375))
    path = page_folder / f"{kind}.{'png' if kind == 'transparent' else 'jpg'}"
    exif = Image.Exif()
    if kind == "turned":
        exif[0x0112] = 6  # the camera was held upright
    drawn(*size, "RGBA" if kind == "transparent" else "RGB").save(path, exif=exif)
    expected = prepare(open_picture(path), writer.settings["pictures"])
    found = np.array(opened[0].evaluate(PREPARED, path.name)).reshape(expected.shape)
    difference = np.abs(found - expected) * 128  # in steps of 256
    assert difference.max() < (1.5 if kind == "transparent" else 0.01)


HOSTILE = "<img src=x onerror=alert(1)>.jpg"


def test_what_is_no_picture_is_refused_in_a_line(opened, temple, tmp_path):
    page, trouble = opened
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.jpg").write_bytes((PHOTOS / "cat.jpg").read_bytes()[:300])
    drawn(4000, 40).save(tmp_path / "long.png")
    Image.new("1", (11000, 9000)).save(tmp_path / "huge.png")
    for name, reason in (
        ("text.jpg", "is no picture that this browser can read"),
        ("empty.jpg", r"is empty \(0 bytes\)"),
        ("cut.jpg", "is no picture that this browser can read"),
        ("long.png", "has 4000 x 40 pixels, more than 50 times as long as wide; crop it"),
        ("huge.png", "has 11000 x 9000 pixels, but at most 89,478,485 are read|is no picture that this browser can"),
    ):
        assert caption(page, tmp_path / name) is None, name
        assert re.match(f"{name} ({reason})", page.locator("#status").text_content())
    wrong = {"name": HOSTILE, "mimeType": "image/jpeg", "buffer": b"no picture"}
    assert caption(page, wrong) is None
    assert page.locator("#status").text_content().startswith(f"{HOSTILE} is no picture")
    right = wrong | {"buffer": (PHOTOS / "temple.jpg").read_bytes()}
    assert caption(page, right) == temple
    assert page.locator("#photo").get_attribute("aria-label") == f"Your photo: {HOSTILE}"
    assert trouble == []


def test_nothing_can_leave_the_page(open_page, host):
    page, _ = open_page()
    page.goto(host[1])
    blocked = """async (url) => {
      const broken = new Promise((done) => addEventListener("securitypolicyviolation",
        ({ blockedURI }) => done(blockedURI)));
      await fetch(url, { method: "POST", body: "a photo" }).catch(() => {});
      return broken;
    }"""
    assert page.evaluate(blocked, "https://example.org/").startswith("https://example.org")
    policy = page.locator("meta[http-equiv]").get_attribute("content")
    assert "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self';" in policy


def test_it_works_without_a_network_after_the_first_load(open_page, page_folder, temple):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(page_folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page, trouble = open_page()
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    page.locator("#loading").wait_for(state="hidden")
    server.shutdown()
    server.server_close()
    page.reload()
    page.locator("#loading").wait_for(state="hidden")
    assert caption(page, PHOTOS / "temple.jpg") == temple
    page.get_by_role("button", name="the cat Chelsea").click()
    page.locator("#strange").wait_for()
    assert [each for each in trouble if "request" in each] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_a_keyboard_and_a_screen_reader(open_page, host, scheme, tmp_path):
    page, trouble = open_page(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(host[1])
    page.locator("#loading").wait_for(state="hidden")
    for expected in ("Choose a photo", "Use the camera", "Eileen Collins"):
        page.keyboard.press("Tab")
        name = "(document.activeElement.closest('label') ?? document.activeElement)"
        said = page.evaluate(f"{name}.innerText || {name}.querySelector('img').alt")
        assert said.strip() == expected
    page.keyboard.press("Enter")
    page.locator("#result[aria-busy=false] #caption:not(:empty)").wait_for()
    written = page.locator("#caption").text_content()
    assert page.locator("[role=status]", has_text=f"Caption: {written}.").count() == 1
    assert page.get_by_role("img", name="Your photo: astronaut.jpg").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing overflows sideways
    assert all(each.get_attribute("alt") for each in page.locator("img").all())
    lightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(lightness) > 600) == (scheme == "light")
    assert trouble == []


def test_the_newest_photo_is_the_one_that_is_captioned(opened, temple):
    page = opened[0]
    page.locator("#file").set_input_files(PHOTOS / "cat.jpg")
    page.locator("#file").set_input_files(PHOTOS / "rocket.jpg")
    assert caption(page, PHOTOS / "temple.jpg") == temple
    page.wait_for_timeout(500)
    assert page.locator("#caption").text_content() == temple
    assert page.get_by_role("img", name="Your photo: temple.jpg").is_visible()


def test_a_photo_is_taken_with_the_camera(open_page, host):
    page, trouble = open_page(permissions=["camera"])
    page.goto(host[1])
    page.get_by_role("button", name="Use the camera").click()
    page.locator("dialog[open] video").wait_for()
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Take the photo").click()
    page.locator("#result[aria-busy=false] #caption:not(:empty)").wait_for()
    assert not page.locator("dialog").is_visible()
    written = page.locator("#spoken").text_content()
    page.get_by_role("button", name="Use the camera").click()
    page.locator("dialog[open] video").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="hidden")
    page.wait_for_timeout(300)
    assert page.locator("#spoken").text_content() == written  # no second photo was taken
    assert page.get_by_role("img", name="Your photo: from the camera").is_visible()
    refused, _ = open_page(permissions=[])
    refused.goto(host[1])
    refused.get_by_role("button", name="Use the camera").click()
    refused.locator("#status.wrong", has_text="The camera cannot be used (NotAllowedError)").wait_for()
    assert trouble == []


def test_the_script_is_short():
    page = ROOT / "helpers" / "export" / "page"
    assert len((page / "demo.js").read_text().splitlines()) <= 400
