"""A screenshot of the explorer, as voila serves it and a headless Chromium shows it."""

import os
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


def take(captioner: Path, pictures: Sequence[Path], path: Path) -> None:
    """Save the explorer at work on the first picture: five beams, and three captions side by side.

    Raises UserError if no Chromium is installed.
    """
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        raise UserError(f"none of {', '.join(BROWSERS)} is installed: install one, or leave out --browser")
    with TemporaryDirectory() as folder:
        for picture in pictures:
            shutil.copy(picture, folder)
        environment = os.environ | {"CLIPXGPT_CAPTIONER": str(captioner.resolve()), "CLIPXGPT_PICTURES": folder}
        command = [sys.executable, "-m", "voila", "notebooks/app.ipynb", "--no-browser", f"--port={PORT}"]
        server = subprocess.Popen(command, cwd=ROOT, env=environment)
        try:
            _wait_for(server)
            with sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=chromium, chromium_sandbox=os.geteuid() != 0)
                page = browser.new_page(viewport={"width": 1040, "height": 1000}, device_scale_factor=1.8)
                page.set_default_timeout(PATIENCE * 1000)
                page.goto(f"http://127.0.0.1:{PORT}", wait_until="commit")
                _play(page)
                page.add_style_tag(content=".clipxgpt {padding: 12px; background: white}")
                page.locator(".clipxgpt").first.screenshot(path=path)
                browser.close()
        finally:
            server.terminate()
            server.wait()
    print(f"drew {path}")


def _wait_for(server: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            return urlopen(f"http://127.0.0.1:{PORT}/voila/static/favicon.ico", timeout=PATIENCE).close()
        except OSError:
            time.sleep(0.3)
    raise UserError(f"voila does not answer on port {PORT}")


def _play(page) -> None:
    for method in ("greedy", "sampling", "beam search"):
        page.get_by_role("button", name=method, exact=True).click()
        page.get_by_role("button", name="caption it").click()
        said = {"greedy": "· greedy", "sampling": "· T 1.0", "beam search": "beams"}[method]
        page.locator(".clipxgpt small").filter(has_text=said).first.wait_for()
        page.get_by_role("button", name="compare").first.click()
        page.wait_for_timeout(1500)  # milliseconds; the comparison's line has no mark of its own
    page.mouse.move(0, 0)
