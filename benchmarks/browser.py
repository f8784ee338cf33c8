"""How long does the page of `make demo` take per photo? `python -m benchmarks.browser [--page DIR] [--photos DIR]`.

In a headless Chromium, without a cache: seconds until the captioner is ready, fetched from this machine, and from each
photo's choice until its caption is complete, pauses between the words included. Results: results/browser.json.
"""

import argparse
import functools
import http.server
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

RESULTS = Path(__file__).parent / "results" / "browser.json"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MOST = 50  # photos


def main() -> None:
    """Measure, print and save the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, default=Path("build/demo"))
    parser.add_argument("--photos", type=Path, default=Path("notebooks/photos"))
    chosen = parser.parse_args()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(chosen.page))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.func.log_message = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)
        page = chromium.new_page()
        begun = time.perf_counter()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.locator("#loading").wait_for(state="hidden")
        ready, seconds = time.perf_counter() - begun, []
        for photo in sorted(chosen.photos.glob("*.jpg"))[:MOST]:
            begun = time.perf_counter()
            page.locator("#file").set_input_files(photo)
            page.locator("#result[aria-busy=false] #caption:not(:empty)").wait_for()
            seconds.append(time.perf_counter() - begun)
        chromium.close()
    results = {
        "cores": os.cpu_count(), "busy": round(os.getloadavg()[1] / os.cpu_count(), 2), "photos": len(seconds),
        "seconds_until_ready": round(ready, 2),
        "seconds_per_photo": dict(zip(("least", "median", "most"), _spread(seconds), strict=True)),
    }  # fmt: skip
    print(json.dumps(results, indent=1))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def _spread(seconds: list[float]) -> list[float]:
    return np.quantile(seconds, [0, 0.5, 1]).round(2).tolist()


if __name__ == "__main__":
    main()
