"""The built kernels in a simulated Kaggle (kaggle_session.py): three sessions equal an uncut run to the bit.

KAGGLE_PYTHON chooses the Python that runs the kernels; `make test-kaggle` gives one with the stock image's versions.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from kaggle_session import LAYOUTS, SessionError, run_session, why_impossible
from nbformat.v4 import new_code_cell, new_notebook
from safetensors.torch import load_file

from helpers.captions.read import read_captions
from helpers.data.scenes import draw_world
from helpers.training.run import HISTORY, Run

sys.path.insert(0, str(Path(__file__).parents[1] / "kaggle"))

from build_kernels import DATASET, KERNEL_FILE, build
from check import push_order

PYTHON = Path(os.environ.get("KAGGLE_PYTHON", sys.executable))
PHOTOS = "hsankesara/flickr-image-dataset"
FLICKR8K = "adityajn105/flickr8k"
CLOCK = ("captions_per_second", "elapsed_seconds")
CUT = 20 / 3600  # hours, for a session that is cut
OBSTACLE = why_impossible()

pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))

LOOK_AROUND = """
import os, socket, tempfile
from pathlib import Path

assert Path.cwd() == Path("/kaggle/working") and not list(Path.cwd().glob("*.txt"))
assert os.environ["KAGGLE_KERNEL_RUN_TYPE"] == "Batch" and "HF_HUB_OFFLINE" not in os.environ
for place in {places}:
    source = Path("/kaggle/input", place)
    assert [path.name for path in source.iterdir()] == ["here.txt"], place
    try:
        (source / "there.txt").touch()
    except OSError as error:
        assert "Read-only" in str(error)
    else:
        raise AssertionError("an input can be written to")
assert not list(Path("/kaggle").rglob("unseen.txt"))
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname(), timeout=5).close()
try:
    socket.create_connection(("1.1.1.1", 53), timeout=5)
except OSError as error:
    assert "unreachable" in str(error)
else:
    raise AssertionError("there is a network")
Path("output.txt").touch()
Path(tempfile.gettempdir(), "for the next session").touch()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The folder of all sessions, with a drawn world in the layouts of Flickr30k and of Flickr8k."""
    place = tmp_path_factory.mktemp("kaggle")
    world = draw_world(place / "photos" / "flickr30k_images", images=3000)
    flickr8k = place / "flickr8k"
    shutil.copytree(world / "flickr30k_images", flickr8k / "Images")
    captions, _ = read_captions(world / "results.csv")
    captions.rename(columns={"image_name": "image"}).to_csv(flickr8k / "captions.txt", index=False)
    (place / "tmp").mkdir()
    return place


@pytest.fixture(scope="module")
def outputs(place) -> dict[str, Path]:
    """Run every kernel on the sources that its metadata names, and return the outputs by folder."""
    if "KAGGLE_PYTHON" not in os.environ:
        pytest.skip("the sessions take ten minutes: make test-kaggle")
    for built, max_hours in (("cut", CUT), ("last", None)):
        build("me", place / built, {"PRESET": "tiny", "JUDGE": "tiny", "MAX_HOURS": max_hours, "SEEDS": 1})
    sources = {PHOTOS: place / "photos", FLICKR8K: place / "flickr8k", f"me/{DATASET}": place / "last" / DATASET}
    folders = [file.parent for file in (place / "last").glob(f"*/{KERNEL_FILE}")]
    kernels = push_order({folder: json.loads((folder / KERNEL_FILE).read_text()) for folder in folders})
    outputs = {}
    for (kernel, metadata), layout in zip(kernels.items(), cycle(LAYOUTS)):
        if kernel.name in ("04-training-run-1", "04-training-run-2"):
            kernel = place / "cut" / kernel.name
        outputs[kernel.name] = sources[metadata["id"]] = run(kernel, sources, place, layout)
    return outputs


def run(kernel: Path, sources: dict[str, Path], place: Path, layout: str, name: str = "") -> Path:
    """Run one session, print how long it took, and return its output."""
    began, working = time.monotonic(), place / "output" / (name or kernel.name)
    working.mkdir(parents=True)
    run_session(kernel, sources, working, place / "tmp", layout, PYTHON)
    print(f"{working.name:<32}{layout:<8}{time.monotonic() - began:>6.0f} s")
    return working


def write_kernel(folder: Path, cell: str) -> Path:
    """Write a kernel of one cell that reads one dataset and one kernel's output."""
    metadata = {"code_file": "it.ipynb", "dataset_sources": ["me/data"], "kernel_sources": ["me/before"]}
    folder.mkdir()
    (folder / KERNEL_FILE).write_text(json.dumps(metadata))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=[new_code_cell(cell)], metadata={"kernelspec": kernel}), folder / "it.ipynb")
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_session_is_like_kaggles(layout, tmp_path):
    sources = {name: tmp_path / name.replace("/", "-") for name in ("me/data", "me/before", "me/unseen")}
    for name, source in sources.items():
        source.mkdir()
        (source / ("unseen.txt" if name == "me/unseen" else "here.txt")).touch()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "working").mkdir()
    slugs = zip(LAYOUTS[layout], ("data", "before"), strict=True)
    places = [place.format(owner="me", slug=slug) for place, slug in slugs]
    kernel = write_kernel(tmp_path / "kernel", LOOK_AROUND.replace("{places}", repr(places)))
    before = sorted(Path("/").iterdir()), Path("/proc/self/mountinfo").read_text().count("kaggle")
    run_session(kernel, sources, tmp_path / "working", tmp_path / "tmp", layout, PYTHON)
    assert {path.name for path in (tmp_path / "working").iterdir()} == {"output.txt", "__notebook__.ipynb"}
    assert (tmp_path / "tmp" / "for the next session").exists()
    assert before == (sorted(Path("/").iterdir()), Path("/proc/self/mountinfo").read_text().count("kaggle"))


def test_a_notebook_that_fails_fails_the_session(tmp_path):
    for name in ("data", "before", "tmp", "working"):
        (tmp_path / name).mkdir()
    sources = {"me/data": tmp_path / "data", "me/before": tmp_path / "before"}
    kernel = write_kernel(tmp_path / "kernel", "1 / 0")
    with pytest.raises(SessionError, match="ZeroDivisionError"):
        run_session(kernel, sources, tmp_path / "working", tmp_path / "tmp", "flat", PYTHON)


def test_the_run_goes_on_from_session_to_session(outputs):
    runs = [Run(outputs[f"04-training-run-{session}"] / "runs/small") for session in (1, 2, 3)]
    steps = [int(run.history().step.iloc[-1]) for run in runs]
    assert 0 < steps[0] < steps[1] < steps[2], steps


def test_the_last_session_ends_where_an_uncut_run_ends(outputs, place):
    photos, whole = place / "photos" / "flickr30k_images", Run(place / "whole")
    cache = outputs["01-clip-embedding-cache"] / "flickr30k-embeddings"
    subprocess.run(
        [PYTHON, "-m", "helpers", "train", "--preset", "tiny", "--images", photos / "flickr30k_images",
         "--captions", photos / "results.csv", "--cache", cache, "--out", whole.folder],
        cwd=place / "last" / DATASET, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True,
    )  # fmt: skip
    chained = Run(outputs["04-training-run-3"] / "runs/small")
    kept = [name for name in HISTORY if name not in CLOCK]
    pd.testing.assert_frame_equal(chained.history()[kept], whole.history()[kept], check_exact=True)
    newest = max(whole.checkpoints.iterdir()).name
    for file in (f"checkpoints/{newest}/model.safetensors", f"checkpoints/{newest}/optimizer.safetensors",
                 "captioner/model.safetensors"):  # fmt: skip
        one, other = load_file(whole.folder / file), load_file(chained.folder / file)
        assert one.keys() == other.keys()
        assert all(one[name].equal(other[name]) for name in one), file


def test_an_output_holds_what_the_next_session_needs_and_no_pictures(outputs):
    for kernel, output in outputs.items():
        embeddings = "flickr8k-embeddings" if kernel[:2] == "08" else "flickr30k-embeddings"
        wanted = {"__notebook__.ipynb", embeddings} | ({"runs"} if kernel[:2] != "01" else set())
        assert {path.name for path in output.iterdir()} == wanted


def test_photos_have_no_facts_and_the_notebooks_run_on_them(place, outputs):
    (place / "photos" / "flickr30k_images" / "facts.json").unlink()
    sources = {PHOTOS: place / "photos", f"me/{DATASET}": place / "last" / DATASET,
               "me/clipxgpt-04-training-run-3": outputs["04-training-run-3"]}  # fmt: skip
    for kernel, layout in (
        ("01-clip-embedding-cache", "by kind"),
        ("05-qualitative-results", "flat"),
        ("06-evaluation", "mixed"),
    ):
        output = run(place / "last" / kernel, sources, place, layout, f"{kernel}-photos")
        assert (output / "flickr30k-embeddings").exists()
