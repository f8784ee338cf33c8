"""The app's server: voila with limits, and one process that writes captions for all visitors: `make app`.

A visitor's kernel holds widgets and the picture on the page, but neither PyTorch nor a captioner.
"""

import os
import socket
import threading
import webbrowser
from collections.abc import Sequence
from multiprocessing import get_context, parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tornado.web import HTTPError, RequestHandler
from traitlets.config import Config
from voila.app import Voila

from .captioners import write_for_all
from .voila_app import ADDRESS, find_captioners

HOSTS = "CLIPXGPT_HOSTS"  # environment variable: names, separated by commas, under which browsers may ask for the app
MOST_VISITORS = 30  # at a time; one kernel each
IDLE = 600  # seconds without use, after which a visitor's kernel ends, also if the page is still open
CHECKED = 30  # seconds between two looks for idle kernels
# In bytes. A larger upload cuts the visitor's connection; one of over 20 MB is refused in words.
LARGEST_MESSAGE = 64_000_000


class App(Voila):
    """Voila that checks the Host header, and opens the browser with the token."""

    def init_settings(self) -> dict[str, Any]:
        """Return voila's settings for tornado, but answer only to the names of this machine and those in HOSTS.

        Otherwise a page of another site, whose name its owner lets point to this machine, could use the app.
        """
        more = [name.strip() for name in os.environ.get(HOSTS, "").split(",") if name.strip()]
        hosts = ["localhost", *(name.lower() for name in more)]
        return super().init_settings() | {"allow_remote_access": False, "local_hostnames": hosts}

    def launch_browser(self) -> None:
        """Open the page in the browser, the token in its address."""
        threading.Thread(target=webbrowser.open, args=(self.display_url,), daemon=True).start()


def limits() -> Config:
    """Return voila's configuration; options of the command line go before."""
    return Config({
        "Voila": {"auto_token": True, "tornado_settings": {"websocket_max_message_size": LARGEST_MESSAGE}},
        "VoilaConfiguration": {"prelaunch_hook": refuse_crowd, "file_allowlist": []},
        "MappingKernelManager": {"cull_idle_timeout": IDLE, "cull_interval": CHECKED, "cull_connected": True},
    })  # fmt: skip


def refuse_crowd(handler: RequestHandler, **_page: Any) -> None:
    """Answer 503 to a visitor beyond MOST_VISITORS, before a kernel starts."""
    if len(handler.kernel_manager.list_kernel_ids()) >= MOST_VISITORS:
        raise HTTPError(503, reason=f"{MOST_VISITORS} visitors are here already; try again in some minutes")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the app until Ctrl-C or SIGTERM. arguments: voila's; by default those of the command line."""
    found, _ = find_captioners(os.environ)
    with TemporaryDirectory(prefix="clipxgpt-") as folder:
        address = str(Path(folder) / "captions")
        if found and hasattr(socket, "AF_UNIX"):
            os.environ[ADDRESS] = address  # which the kernels inherit
            writer = get_context("spawn").Process(target=_write, args=(address, found), daemon=True)
            writer.start()
            while writer.is_alive() and not Path(address).exists():  # the first visitor must find it listening
                writer.join(0.1)
        App.launch_instance(arguments, config=limits())


def _write(address: str, folders: dict[str, Path]) -> None:
    """Write captions for all as long as the server lives."""
    threading.Thread(target=lambda: (parent_process().join(), os._exit(0)), daemon=True).start()
    write_for_all(address, folders)


if __name__ == "__main__":
    main()
