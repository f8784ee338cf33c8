"""Servers on loopback, a headless Chromium, and pages that record what goes wrong on them.

Not collected by `pytest tests`: `make test-browser` asks for this folder.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HERE = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "file:")
PATIENCE = 120  # seconds, for a server or a kernel to start on a busy machine


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Start the system's Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    with playwright.sync_playwright() as driver:
        # Chromium starts as root, as on a new CI machine, only without its sandbox.
        # Its camera is a drawn one.
        chromium = driver.chromium.launch(
            executable_path=path, chromium_sandbox=os.geteuid() != 0, args=["--use-fake-device-for-media-stream"]
        )
        yield chromium
        chromium.close()


class Trouble(list):
    """A list of a page's alerts, uncaught errors, and requests that left this machine."""

    def watch(self, page) -> None:
        page.on("dialog", lambda dialog: (self.append(f"alert: {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: self.append(f"error: {error}"))
        page.on("request", lambda request: self._check(request.url))

    def _check(self, url: str) -> None:
        # voila's own page asks a CDN for an icon font, but works without it.
        if "/@fortawesome/" not in url and not url.startswith(
            ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "file:")
        ):
            self.append(f"request: {url}")


@pytest.fixture(scope="module")
def open_page(browser) -> Iterator[Callable]:
    """Return a function that opens a page and records its trouble. It closes all pages at the end."""
    contexts = []

    def open_one(**options):
        context = browser.new_context(viewport={"width": 1180, "height": 1000}, accept_downloads=True, **options)
        context.set_default_timeout(PATIENCE * 1000)
        context.route(lambda url: not url.startswith(HERE), lambda route: route.abort())  # as if there were no network
        contexts.append(context)
        page, trouble = context.new_page(), Trouble()
        trouble.watch(page)
        return page, trouble

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def serve(tmp_path_factory) -> Iterator[Callable]:
    """Return a function that starts a server without the user's settings. It ends all servers and their kernels."""
    servers = []

    def start(*arguments: str, folder: Path, path: str = "/", **environment: str) -> str:
        port = _free_port()
        home = tmp_path_factory.mktemp("home")
        settings = {name: str(home / name) for name in
                    ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR",
                     "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")}  # fmt: skip
        log = home / "log"
        with log.open("w") as output:
            server = subprocess.Popen(
                [sys.executable, "-m", *arguments, "--no-browser", f"--port={port}"], cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", **settings, **environment},
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        servers.append(server)
        url = f"http://127.0.0.1:{port}"
        for _ in range(PATIENCE * 5):
            if server.poll() is not None:
                raise AssertionError(f"the server ended: {log.read_text()[-2000:]}")
            try:
                urlopen(url + path, timeout=PATIENCE).close()
                return url
            except (URLError, ConnectionError):
                time.sleep(0.2)
        raise AssertionError(f"no answer at {url}: {log.read_text()[-2000:]}")

    yield start
    for server in servers:
        _end(server.pid)
        server.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _end(pid: int) -> None:
    """End a process and its children; kill those that do not end in 10 seconds."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    family[0].terminate()
    _, left = psutil.wait_procs(family, timeout=10)
    for process in left:
        process.kill()
