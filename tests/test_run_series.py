"""The series of notebooks ends in one line when it is interrupted, leaves no half copy, and can be run again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

pytest.importorskip("papermill", reason="papermill executes the notebooks")
ROOT = Path(__file__).parents[1]
# The command `notebooks` on other notebooks, because those of the series take minutes.
COMMAND = """
import sys
from pathlib import Path
import helpers.notebooks
from helpers.cli import main
helpers.notebooks.NOTEBOOKS = Path(sys.argv[1])
helpers.notebooks.summary = lambda out: f"{out} is whole"
main(["notebooks", "--out", sys.argv[2]])
"""


@pytest.fixture
def series(tmp_path):
    """Return a function that starts a series of two notebooks; the second one waits as long as a file is there."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    wait = "import time\nPath('{0}/began').touch()\nwhile Path('{0}/wait').exists():\n    time.sleep(0.1)"
    for name, source in (("01_a", "1 + 1"), ("02_b", f"from pathlib import Path\n{wait.format(tmp_path)}")):
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source)],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        nbformat.write(notebook, folder / f"{name}.ipynb")
    (tmp_path / "wait").touch()

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(folder), str(tmp_path / "run")], cwd=tmp_path, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_interrupted_series_ends_in_one_line_and_runs_again(series, tmp_path, number, status):
    with series() as process:
        for _ in range(1200):
            if (tmp_path / "began").exists():
                break
            time.sleep(0.1)
        kernels = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait(60) == status
        said = process.stderr.read()
    if number != signal.SIGKILL:
        assert said.rstrip("\n").splitlines()[-1] == "clipxgpt: interrupted; run the same command again to go on"
        assert "Traceback" not in said
        assert sorted(path.name for path in (tmp_path / "run" / "notebooks").iterdir()) == ["01_a.ipynb"]
    _gone, alive = psutil.wait_procs(kernels, timeout=60)
    assert not alive
    (tmp_path / "wait").unlink()
    with series() as process:
        assert process.wait(120) == 0
        assert "run is whole" in process.stdout.read()
    assert sorted(path.name for path in (tmp_path / "run" / "notebooks").iterdir()) == ["01_a.ipynb", "02_b.ipynb"]
