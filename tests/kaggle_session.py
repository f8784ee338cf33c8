"""A session that runs one built kernel as Kaggle does: by papermill, without network, with its sources read-only under
/kaggle/input and its output in /kaggle/working.

The session gets its own root directory in new namespaces: this machine's folders, a private /tmp, and /kaggle, which
is invisible outside the session.
"""

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

LAYOUTS = {  # where a dataset and another kernel's output are mounted under /kaggle/input
    "flat": ("{slug}", "{slug}"),
    "mixed": ("{slug}", "notebooks/{owner}/{slug}"),
    "by kind": ("datasets/{owner}/{slug}", "notebooks/{owner}/{slug}"),
}
NOTEBOOK = "__notebook__.ipynb"  # Kaggle's name for the executed notebook in the output


class SessionError(Exception):
    """A kernel that failed; the message is what it printed last."""


def unshare() -> list[str]:
    """Return the command that runs a session in new namespaces."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", "--mount", "--net", *user, "--"]


def why_impossible() -> str | None:
    """Return the reason that no session can run on this machine, or None."""
    if shutil.which("unshare") is None:
        return "there is no unshare here"
    command = [*unshare(), "mount", "-t", "tmpfs", "none", tempfile.gettempdir()]
    tried = subprocess.run(command, capture_output=True, text=True)
    return f"namespaces are not permitted here: {tried.stderr.strip()}" if tried.returncode else None


def run_session(kernel: Path, sources: Mapping[str, Path], working: Path, tmp: Path, layout: str, python: Path) -> Path:
    """Run the kernel in the folder `kernel` and return the executed notebook.

    sources: the folder of each source in its metadata, by owner/slug; the session does not see any others.
    working: the folder for the output. tmp: the session's /tmp. python: the interpreter, with papermill, that runs the
    notebook. Raises SessionError if the notebook fails.
    """
    metadata = json.loads((kernel / "kernel-metadata.json").read_text())
    mounts = {"tmp": tmp, "kaggle/src": kernel, "kaggle/working": working}
    for key, place in zip(("dataset_sources", "kernel_sources"), LAYOUTS[layout], strict=True):
        for source in metadata[key]:
            owner, slug = source.split("/")
            mounts[f"kaggle/input/{place.format(owner=owner, slug=slug)}"] = sources[source]
    if python.is_relative_to("/tmp"):  # the session's own /tmp would hide it
        mounts[str(python.parents[1]).lstrip("/")] = python.parents[1]
    command = [str(python), "-m", "papermill", f"/kaggle/src/{metadata['code_file']}", NOTEBOOK, "--kernel", "python3",
               "--log-output", "--no-progress-bar"]  # fmt: skip
    environment = {"PATH": os.environ["PATH"], "HOME": "/tmp", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1",
                   "KAGGLE_KERNEL_RUN_TYPE": "Batch"}  # fmt: skip
    root = tempfile.mkdtemp()
    places = {name: str(folder.resolve()) for name, folder in mounts.items()}
    plan = json.dumps({"root": root, "mounts": places, "command": command})
    inside = [*unshare(), sys.executable, __file__, plan]
    try:
        done = subprocess.run(inside, env=environment, capture_output=True, text=True, timeout=1800)
    finally:
        Path(root).rmdir()  # empty, because the session's mounts are not visible here
    if done.returncode:
        raise SessionError(f"{kernel.name} ended with exit status {done.returncode}: {done.stderr[-3000:]}")
    return working / NOTEBOOK


def enter(root: str, mounts: Mapping[str, str], command: list[str]) -> None:
    """Build the session's root directory, change into it and become `command`. Runs in the new namespaces."""
    mount("-t", "tmpfs", "none", root)  # only this process and its children see it
    for entry in Path("/").iterdir():
        place = Path(root, entry.name)
        if entry.is_symlink():
            place.symlink_to(entry.readlink())
        elif entry.is_dir() and entry.name not in ("tmp", "kaggle"):
            place.mkdir()
            mount("--rbind", entry, place)
    for name, folder in mounts.items():
        place = Path(root, name)
        place.mkdir(parents=True, exist_ok=True)
        mount("--bind", folder, place)
        if name.startswith(("kaggle/input", "kaggle/src")):
            mount("-o", "remount,bind,ro", place)
    raise_loopback()
    os.chroot(root)
    os.chdir("/kaggle/working")
    os.execv(command[0], command)


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def raise_loopback() -> None:
    """Do `ip link set lo up`: Jupyter talks to its kernel over loopback."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH22x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING


if __name__ == "__main__":
    enter(**json.loads(sys.argv[1]))
