"""Screenshots of the explorer, as voila serves it, and of the page of `make demo`, in a headless Chromium."""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from helpers import UserError

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PORT = 8911
PATIENCE = 120  # seconds, until the server answers and until a caption is there
ROOT = Path(__file__).parents[1]


def take(captioners: str, pictures: Sequence[Path], path: Path) -> None:
    """Save the explorer at work on the first picture: five beams, and three captions side by side.

    captioners: their folders, separated as in PATH.
    Raises UserError if no Chromium is installed.
    """
    from playwright.sync_api import sync_playwright

    chromium = _chromium()
    with TemporaryDirectory() as folder:
        for picture in pictures:
            shutil.copy(picture, folder)
        token = secrets.token_hex()
        environment = os.environ | {
            "CLIPXGPT_CAPTIONER": captioners, "CLIPXGPT_PICTURES": folder, "JUPYTER_TOKEN": token
        }  # fmt: skip
        command = [sys.executable, "-m", "helpers.ui.server", "notebooks/app.ipynb", "--no-browser", f"--port={PORT}"]
        server = subprocess.Popen(command, cwd=ROOT, env=environment)
        try:
            _wait_for(server)
            with sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=chromium, chromium_sandbox=os.geteuid() != 0)
                page = browser.new_page(viewport={"width": 1040, "height": 1000}, device_scale_factor=1.8)
                page.set_default_timeout(PATIENCE * 1000)
                page.goto(f"http://127.0.0.1:{PORT}/?token={token}", wait_until="commit")
                _play(page)
                page.add_style_tag(content=".clipxgpt {padding: 12px; background: var(--jp-layout-color1)}")
                page.locator(".clipxgpt").first.screenshot(path=path)
                browser.close()
        finally:
            server.terminate()
            server.wait()
    print(f"drew {path}")


def take_demo(page: Path, picture: Path, path: Path) -> None:
    """Save the page in the folder `page` with the caption of a picture, on a light desk and on a dark phone.

    Raises UserError if the page was not built, or no Chromium is installed.
    """
    from PIL import Image
    from playwright.sync_api import sync_playwright

    if not (page / "index.html").exists():
        raise UserError(f"{page} holds no page: make demo builds it")
    command = [sys.executable, "-m", "http.server", str(PORT), "--bind", "127.0.0.1", "--directory", str(page)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shots = []
    try:
        with sync_playwright() as driver, TemporaryDirectory() as folder:
            browser = driver.chromium.launch(executable_path=_chromium(), chromium_sandbox=os.geteuid() != 0)
            for scheme, width in (("light", 760), ("dark", 360)):
                shown = browser.new_page(viewport={"width": width, "height": 860}, color_scheme=scheme)
                shown.goto(f"http://127.0.0.1:{PORT}/")
                shown.locator("#loading").wait_for(state="hidden", timeout=PATIENCE * 1000)
                shown.locator("#file").set_input_files(picture)
                shown.locator("#result[aria-busy=false]").wait_for()
                shown.screenshot(path=Path(folder) / f"{scheme}.png", full_page=True)
                shots.append(Image.open(Path(folder) / f"{scheme}.png").convert("RGB"))
                shots[-1].load()
            browser.close()
    finally:
        server.terminate()
        server.wait()
    both = Image.new("RGB", (sum(shot.width for shot in shots), max(shot.height for shot in shots)), "white")
    for shot, left in zip(shots, (0, shots[0].width), strict=True):
        both.paste(shot, (left, 0))
    both.save(path)
    print(f"drew {path}")


def _chromium() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise UserError(f"none of {', '.join(BROWSERS)} is installed: install one, or leave out --browser")
    return found


def _wait_for(server: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            return urlopen(f"http://127.0.0.1:{PORT}/voila/static/favicon.ico", timeout=PATIENCE).close()
        except OSError:
            time.sleep(0.3)
    raise UserError(f"voila does not answer on port {PORT}")


def _play(page) -> None:
    page.locator(".clipxgpt-caption").first.wait_for()
    page.get_by_role("button", name="compare").first.click()
    page.get_by_text("decoding: greedy").click()
    for number, (method, words) in enumerate({"sampling": "T 1.0", "beam search": "5 beams"}.items(), start=2):
        page.get_by_role("button", name=method, exact=True).click()
        page.get_by_text(f"decoding: {words}").wait_for()
        page.get_by_role("status").filter(has_text="The bars show").wait_for()
        page.get_by_role("button", name="compare").first.click()
        page.locator(f".clipxgpt-table tbody tr:nth-child({number})").wait_for()
    page.mouse.move(0, 0)
