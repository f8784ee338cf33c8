"""The Makefile: what each target would run is there, and its commands take the options that they are given."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from helpers.cli import app

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def lines(target: str) -> list[str]:
    """Return what `make TARGET` would run, a command per line, with loops as their first round."""
    make = ["make", "--no-print-directory", "--dry-run", "--assume-old=.venv/ready", target]
    dry = subprocess.run(make, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    dry = re.sub(r"for \w+ in .*?; do (.*?)\|\| exit; *done", r"\1", dry.replace("\\\n", " "))
    return [re.sub(r"^([A-Z_]+=\S+ )+", "", line.strip()).replace("$seed", "0") for line in dry.splitlines()]


def test_no_variable_is_given_twice():
    """A variable's last value holds in the lines above it too."""
    given = re.findall(r"^([A-Z_]\w+)\s*[:?]?=", MAKEFILE, flags=re.MULTILINE)
    assert len(given) == len(set(given)) > 8


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE)) - {"setup"}))
def test_every_line_of_a_target_can_run(target):
    for line in lines(target):
        program, *arguments = shlex.split(line)
        assert program.startswith((".venv/bin/", ".venv-kaggle/bin/")) or shutil.which(program), line
        if program.endswith("/clipxgpt"):
            name, *options = arguments
            get_command(app).commands[name].make_context(name, options)
        elif arguments[:1] == ["-m"] and arguments[1].startswith("benchmarks."):
            assert (ROOT / arguments[1].replace(".", "/")).with_suffix(".py").exists(), line
