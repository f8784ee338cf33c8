"""Whatever becomes of its output, a command goes on with its work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.runtime.streams import lasting_streams

PROGRAM = """
import sys
from tqdm import tqdm
from helpers.runtime.streams import lasting_streams
with lasting_streams():
    for number in tqdm(range(3)):
        print("Zoë", number, flush=True)
        tqdm.write("…", file=sys.stderr)
    with open("done", "w") as file:
        file.write(f"{number} {sys.stdout.unread}")
"""


@pytest.fixture
def in_shell(tmp_path):
    """Run PROGRAM with its streams as the shell's text says: the exit status, the output and what it did."""
    root = str(Path(__file__).parents[2])

    def run(streams: str, **environment: str) -> tuple[int, bytes, str]:
        done = subprocess.run(["bash", "-c", f"set -o pipefail; '{sys.executable}' -c '{PROGRAM}' {streams}"],
                              cwd=tmp_path, env={**os.environ, "PYTHONPATH": root, **environment}, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)  # fmt: skip
        return done.returncode, done.stdout, (tmp_path / "done").read_text()

    return run


@pytest.mark.parametrize(
    ("streams", "unread"),
    [("2> err | true", True), ("2>&1 | true", True), (">&- 2> err", False), (">&- 2>&-", False), ("> out 2>&-", False)],
)
def test_no_reader_and_no_stream_cost_nothing(in_shell, streams, unread):
    status, said, did = in_shell(streams.replace("| true", "| (exec <&-; sleep 1)"))
    assert (status, said) == (0, b"")
    assert did == f"2 {unread}"


def test_letters_that_the_encoding_lacks_are_escaped(in_shell):
    status, said, did = in_shell("2> err", PYTHONIOENCODING="ascii")
    assert (status, said) == (0, b"Zo\\xeb 0\nZo\\xeb 1\nZo\\xeb 2\n")
    assert did == "2 False"


def test_the_streams_are_as_before_afterwards(capsys):
    before = sys.stdout, sys.stderr
    with lasting_streams():
        print("said")
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "said\n"
