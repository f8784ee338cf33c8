"""The public names of the package, and that importing it loads nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

import helpers

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "numpy", "pandas", "matplotlib", "PIL", "IPython", "ipywidgets", "accelerate")


def run(code: str, *words: object) -> str:
    """Return what the code prints in a new process, in which no test has imported anything."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", helpers.__all__)
def test_every_public_name_is_there(name):
    assert getattr(helpers, name) is not None


def test_a_name_that_is_none_is_said_so():
    with pytest.raises(AttributeError, match=r"module 'helpers' has no attribute 'no_such_name'"):
        helpers.no_such_name  # noqa: B018
    with pytest.raises(ImportError):
        from helpers import no_such_name  # noqa: F401


def test_importing_it_loads_nothing_heavy():
    loaded = run("import sys, helpers; print(helpers.__doc__ is not None, *sys.modules)").split()
    assert loaded[0] == "True"
    assert not set(loaded) & set(HEAVY)


def test_a_headless_machine_trains_without_figures_and_widgets(data, cache, config, tmp_path):
    """Train without matplotlib, IPython and ipywidgets; without matplotlib there is no figure."""
    code = """
import sys
for name in ("matplotlib", "IPython", "ipywidgets"):
    sys.modules[name] = None  # as if it were not installed
import warnings
from helpers import CaptionWriter, open_data, preset, train
images, captions, cache, out = sys.argv[1:]
config = preset("tiny").with_values(mapper_layers=1, epochs=1)
run = train(config, open_data(images, captions).captions, cache, out=out, max_steps=3)
print(CaptionWriter.load(run.folder) is not None, run.figure.exists(), len(run.history()))
"""
    said = run(code, data.images, data.images.parent / "results.csv", cache.folder, tmp_path / "run")
    assert said.split() == ["True", "False", "0"]


def test_training_imports_no_figures_until_it_draws_one():
    loaded = run("import sys; from helpers import train, CaptionWriter, evaluate; print(*sys.modules)").split()
    assert not set(loaded) & {"matplotlib", "IPython", "ipywidgets"}
