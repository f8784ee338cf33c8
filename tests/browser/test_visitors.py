"""The app's server: who may ask, how many at a time, and what a visitor costs."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

ROOT = Path(__file__).parents[2]
VISITORS = 20
MOST_MEMORY = 400 << 20  # bytes of one visitor's kernel
PATIENCE = 300  # seconds
IDLE = 90  # seconds; less than that passes on a busy machine before a page is there
TOKEN = "a-token"


@pytest.fixture(scope="module")
def server(finished, data, serve):
    """Return the address of the app, and its process."""
    url = serve("helpers.ui.server", "notebooks/app.ipynb", f"--MappingKernelManager.cull_idle_timeout={IDLE}",
                "--MappingKernelManager.cull_interval=2", folder=ROOT, path="/voila/static/favicon.ico",
                JUPYTER_TOKEN=TOKEN, CLIPXGPT_CAPTIONER=str(finished.captioner),
                CLIPXGPT_PICTURES=str(data.images))  # fmt: skip
    own = psutil.Process().children()
    return url, next(child for child in own if "helpers.ui.server" in child.cmdline())


def get(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urlopen(Request(url, headers=headers), timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def kernels(process) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if "ipykernel_launcher" in " ".join(child.cmdline()):
                found.append(child)
    return found


def wait_until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.5)


def test_without_the_token_there_is_only_the_question_for_it(server):
    url, process = server
    status, page = get(url)
    assert status == 200
    assert 'name="password"' in page
    assert 'name="password"' in get(f"{url}/?token=another")[1]
    assert kernels(process) == []


def test_another_host_is_refused(server):
    url, process = server
    assert get(f"{url}/?token={TOKEN}", Host="elsewhere.example")[0] == 403
    assert kernels(process) == []


def test_no_file_of_the_folder_is_served(server):
    url, _ = server
    for file in ("app.ipynb", "photos/cat.jpg", "../README.md"):
        assert get(f"{url}/voila/files/{file}?token={TOKEN}")[0] in (403, 404)


@pytest.mark.skipif(sys.platform == "win32", reason="the captions come through a Unix socket")
def test_many_visitors_are_served_and_their_memory_comes_back(server):
    url, process = server
    with ThreadPoolExecutor(VISITORS) as pool:
        answers = list(pool.map(lambda _number: get(f"{url}/?token={TOKEN}"), range(VISITORS)))
    assert [status for status, _ in answers] == [200] * VISITORS
    for _, page in answers:
        assert "widget-view+json" in page
        assert "Traceback" not in page
        assert "There was an error" not in page
    sizes = [kernel.memory_info().rss for kernel in kernels(process)]
    if os.environ.get("SCREENSHOTS"):
        print(f"{len(sizes)} kernels, {max(sizes, default=0) >> 20} MB the largest, server and captioner "
              f"{[each.memory_info().rss >> 20 for each in (process, *process.children())][:3]}")  # fmt: skip
    assert max(sizes, default=0) < MOST_MEMORY
    wait_until(lambda: not kernels(process))
