"""The explorer, used by mouse and keyboard in JupyterLab and in the app that voila serves."""

import io
import os
import re
import secrets
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from PIL import Image

from helpers.models.decoding import Decoding

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

ROOT = Path(__file__).parents[2]
PATIENCE = 120_000  # milliseconds, for a caption on a busy machine
HOSTILE = "<img src=x onerror=alert(1)>.png"


def code_cells(name: str) -> list[str]:
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def options(target: str) -> list[str]:
    """Return the options with which `make TARGET` starts its server."""
    dry = ["make", "--no-print-directory", "--dry-run", target]  # a make run by make prints its directory too
    recipe = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = [part for part in shlex.split(recipe.splitlines()[-1]) if part.startswith("--")]
    assert found, f"make {target} gives its server no option: {recipe}"
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the helpers, in which the servers run."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "helpers").symlink_to(ROOT / "helpers")
    return folder


@pytest.fixture(scope="module")
def lab(folder, finished, data, serve, open_page):
    """Run notebook 05's bootstrap, a cell that replaces its training, and its explorer cell in JupyterLab."""
    cells = code_cells("05_qualitative_results")
    (explorer,) = [cell for cell in cells if "explorer.widget" in cell]
    made = (f"from pathlib import Path\nfrom types import SimpleNamespace\n"
            f"from helpers import CaptionWriter, Explorer\n"
            f"writer = CaptionWriter.load({str(finished.captioner)!r})\n"
            f"data = SimpleNamespace(images=Path({str(data.images)!r}))\n"
            f"names = {data.image_names()[:5]!r}")  # fmt: skip
    cells = [nbformat.v4.new_code_cell(source) for source in (cells[0], made, explorer)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "explorer.ipynb")
    token = secrets.token_hex()
    url = serve("jupyter", "lab", f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}",
                "--ServerApp.allow_root=True", *options("lab"), folder=folder, path="/api")  # fmt: skip
    page, trouble = open_page()
    page.goto(f"{url}/lab/tree/explorer.ipynb?token={token}")
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(state="attached")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    return page, trouble


@pytest.fixture(scope="module")
def app(folder, finished, data, serve, open_page):
    """Open the app with one captioner under two names."""
    shutil.copy(ROOT / "notebooks" / "app.ipynb", folder)
    shutil.copytree(finished.captioner, folder / "other" / "captioner")
    named = os.pathsep.join((str(finished.captioner), "other/captioner"))
    token = secrets.token_hex()
    url = serve("helpers.ui.server", "app.ipynb", folder=folder, path="/voila/static/favicon.ico",
                JUPYTER_TOKEN=token, CLIPXGPT_CAPTIONER=named, CLIPXGPT_PICTURES=str(data.images))  # fmt: skip
    page, trouble = open_page()
    page.goto(f"{url}/?token={token}", wait_until="commit")  # voila sends the page while the notebook runs
    return page, trouble


@pytest.fixture(scope="module", params=["lab", "app"])
def shown(request, folder):
    """Return the page with the explorer once it shows a picture."""
    page, trouble = request.getfixturevalue(request.param)
    page.locator(".clipxgpt-caption").first.wait_for()
    assert page.get_by_role("button", name="sampling").is_hidden()
    page.get_by_text("decoding: greedy").click()
    return SimpleNamespace(page=page, trouble=trouble, folder=folder, place=request.param, knobs=Knobs(page))


class Knobs:
    """The explorer's controls, found by their labels."""

    def __init__(self, page):
        self.page = page

    def set(self, label: str, number: str) -> None:
        """Type a number into a slider's readout, once the slider is visible.

        This sends one message, which the kernel handles before that of a button pressed later. A dragged slider sends
        several, and the last one waits for the kernel's answer to the one before.
        """
        slider = self.page.locator(".widget-slider").filter(has=self.page.get_by_text(label, exact=True))
        readout = slider.locator(".widget-readout")
        readout.fill(number)  # waits, because the kernel shows and hides sliders
        readout.press("Enter")
        expect(slider.get_by_role("slider")).to_have_attribute("aria-valuetext", re.compile(rf"^{number}(\.0+)?$"))

    def choose(self, method: str) -> None:
        self.page.get_by_role("button", name=method, exact=True).click()

    def pick(self, name: str) -> None:
        self.page.get_by_title(name, exact=True).click()

    def upload(self, name: str, content: bytes) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name=re.compile("upload a picture")).click()
        chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})

    def drop(self, name: str, content: bytes) -> None:
        """Drop a file on the explorer, as a browser reports it."""
        made = """([name, bytes]) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
          return files;
        }"""
        files = self.page.evaluate_handle(made, [name, list(content)])
        for event in ("dragover", "drop"):
            self.page.dispatch_event(".clipxgpt-figure", event, {"dataTransfer": files})

    def captions(self, name: str, decoding: str = "greedy"):
        """Wait until the page shows the picture `name` and its captions in this decoding, and return them."""
        expect(self.page.locator(".clipxgpt-figure figcaption")).to_have_text(name, timeout=PATIENCE)
        self.page.get_by_text(f"decoding: {decoding}", exact=True).wait_for()
        self.page.get_by_role("status").filter(has_text="The bars show").wait_for()
        return self.page.locator(".clipxgpt-caption b")

    def compare(self, name: str) -> None:
        """Add the first caption to the comparison and wait for its row."""
        self.page.get_by_role("button", name="compare").first.click()
        self.page.locator(".clipxgpt-table td").filter(has_text=name).first.wait_for()


def png(color: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (80, 60), color).save(buffer, "png", **options)
    return buffer.getvalue()


def test_the_first_picture_is_there_with_its_caption(shown, writer, cache, data):
    name = data.image_names()[0]
    assert shown.page.locator(".clipxgpt-figure img").get_attribute("alt") == f"the picture to caption, {name}"
    expect(shown.knobs.captions(name)).to_have_text(writer.write(cache.rows([name])))


def test_every_control_does_what_it_says(shown, data, writer, cache):
    knobs, page, name = shown.knobs, shown.page, data.image_names()[2]
    knobs.pick(name)
    expect(knobs.captions(name)).to_have_text(writer.write(cache.rows([name])))
    knobs.choose("beam search")
    knobs.set("beams", "3")
    expect(knobs.captions(name, "3 beams")).to_have_count(3)
    knobs.choose("sampling")
    knobs.set("temperature", "1.3")
    knobs.set("top p", "0.8")
    page.get_by_label("seed", exact=True).fill("7")
    page.get_by_label("seed", exact=True).press("Tab")
    knobs.set("guidance", "2")
    knobs.set("most tokens", "10")
    sampled = Decoding(temperature=1.3, top_p=0.8, seed=7, max_tokens=10, guidance=2)
    captions = knobs.captions(name, "T 1.3, top p 0.80, seed 7, guidance 2, at most 10 tokens")
    expect(captions).to_have_text(writer.write(cache.rows([name]), sampled))
    knobs.set("most tokens", "40")
    knobs.set("guidance", "1")
    knobs.choose("greedy")
    expect(knobs.captions(name)).to_have_count(1)
    assert page.get_by_text("beams", exact=True).is_hidden()
    if shown.place == "app":
        page.get_by_label("other", exact=True).check()
        expect(knobs.captions(name)).to_have_text(writer.write(cache.rows([name])) * 2)
        page.get_by_label("other", exact=True).uncheck()
        expect(knobs.captions(name)).to_have_count(1)


def test_uploads_and_drops_good_and_broken_and_again(shown):
    knobs, page = shown.knobs, shown.page
    knobs.upload("mine.png", png("red"))
    expect(knobs.captions("mine.png")).to_have_count(1)
    knobs.upload("broken.png", png("red")[:60])
    page.get_by_role("status").filter(has_text="broken.png cannot be read").wait_for()
    assert page.locator(".clipxgpt-figure img").count() == 0
    assert page.locator(".clipxgpt-caption").count() == 0
    knobs.upload("mine.png", png("red"))  # the same file again
    expect(knobs.captions("mine.png")).to_have_count(1)
    knobs.drop("dropped.png", png("green"))
    expect(knobs.captions("dropped.png")).to_have_count(1)
    knobs.upload("large.png", os.urandom(11_000_000))  # more than the servers accept by default
    page.get_by_role("status").filter(has_text="large.png is no picture").wait_for()


def test_a_name_with_html_in_it_is_text(shown):
    knobs, page = shown.knobs, shown.page
    knobs.upload(HOSTILE, png("blue"))
    expect(knobs.captions(HOSTILE)).to_have_count(1)
    knobs.compare(HOSTILE)
    knobs.upload(HOSTILE, b"broken")
    page.get_by_role("status").filter(has_text=HOSTILE).wait_for()
    assert page.locator('img[src="x"]').count() == 0
    assert page.locator(".clipxgpt script").filter(has_text="alert").count() == 0


def test_captions_are_compared_and_downloaded_and_nothing_is_left(shown, data, writer, cache):
    knobs, page, name = shown.knobs, shown.page, data.image_names()[1]
    before = sorted(shown.folder.iterdir())
    knobs.pick(name)
    (caption,) = writer.write(cache.rows([name]))
    expect(knobs.captions(name)).to_have_text([caption])
    knobs.compare(name)
    knobs.choose("beam search")
    expect(knobs.captions(name, "3 beams")).to_have_count(3)
    knobs.compare("3 beams")
    for text, ending in (("save as CSV", "csv"), ("save as picture", "png")):
        with page.expect_download() as download:
            page.get_by_role("link", name=text).click()
        assert re.fullmatch(rf"comparison-[0-9-]+\.{ending}", download.value.suggested_filename)
        if ending == "csv":
            saved = pd.read_csv(download.value.path())
            assert list(saved.picture[-2:]) == [name, name]
            assert list(saved.decoding[-2:]) == ["greedy", "3 beams"]
            assert saved.caption.iloc[-2] == caption
        else:
            assert Image.open(download.value.path()).width > 1000
    assert sorted(shown.folder.iterdir()) == before
    if where := os.environ.get("SCREENSHOTS"):  # a folder for screenshots, to look at later
        page.screenshot(path=f"{where}/{shown.place}.png")
    page.get_by_role("button", name="clear").click()
    page.locator(".clipxgpt-table").wait_for(state="detached")


def test_nothing_went_wrong_on_the_page(shown):
    assert shown.trouble == []
