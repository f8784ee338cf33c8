"""Pushing to Kaggle: the build changes only what it should, the check finds each mistake, the request is complete."""

import inspect
import json
import re
import shutil
import socket
import sys
from pathlib import Path

import nbformat
import pytest

from helpers.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "kaggle"))

import build_kernels
import check as checks
from build_kernels import DATASET, DATASET_FILE, KERNEL_FILE, build, set_parameters
from check import KERNEL_KEYS, check, push_commands, push_order
from rehearse import KERNEL_FIELDS, record, rehearse_kernel

ROOT = Path(__file__).parents[1]
FIRST, SECOND = "01-clip-embedding-cache", "04-training-run-1"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Fail a test that looks up a name or connects."""

    def refuse(*_arguments, **_keywords):
        raise AssertionError("a test of the push reached for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The build for a user named me. Read only."""
    out = tmp_path_factory.mktemp("kaggle") / "built"
    build("me", out)
    return out


@pytest.fixture
def copy(built, tmp_path) -> Path:
    """A build that a test may change."""
    return shutil.copytree(built, tmp_path / "built")


def kernels(out: Path) -> dict[Path, dict]:
    return {file.parent: json.loads(file.read_text()) for file in sorted(out.glob(f"*/{KERNEL_FILE}"))}


def edit(file: Path, **values) -> None:
    """Write values into a metadata file; ... removes a key."""
    metadata = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in metadata.items() if value is not ...}))


# build_kernels.py


def test_only_the_values_of_the_parameters_cell_differ(built):
    for folder, metadata in kernels(built).items():
        name = metadata["code_file"]
        here, there = (nbformat.read(path / name, as_version=4) for path in (ROOT / "notebooks", folder))
        (changed,) = (new.source for old, new in zip(here.cells, there.cells, strict=True) if old != new)
        (cell,) = (cell for cell in here.cells if "parameters" in cell.metadata.get("tags", []))
        assert [line.partition(" = ")[0] for line in changed.split("\n")] == [
            line.partition(" = ")[0] for line in cell.source.split("\n")
        ]
        for comment in re.findall(r"  # .*", cell.source):
            assert comment in changed
        values: dict = {}
        exec(changed, values)
        wanted = json.loads((ROOT / "kaggle" / folder.name / "parameters.json").read_text())
        assert {parameter: values[parameter] for parameter in wanted} == wanted
        cell.source = changed
        assert here == there


def test_the_username_is_everywhere(built):
    for file in built.rglob("*-metadata.json"):
        assert "USERNAME" not in file.read_text()
        assert '"id": "me/' in file.read_text()


def test_the_dataset_has_helpers_as_they_are(built):
    copied = {path.relative_to(built / DATASET / "helpers") for path in (built / DATASET / "helpers").rglob("*.*")}
    here = {path.relative_to(ROOT / "helpers") for path in (ROOT / "helpers").rglob("*.*")}
    assert copied == {path for path in here if "__pycache__" not in path.parts}


def test_the_dataset_has_the_results_that_notebooks_draw(built):
    for name in ("results", "photos"):
        here, there = ROOT / "notebooks" / name, built / DATASET / "notebooks" / name
        wanted = {path.relative_to(here): path.read_bytes() for path in here.rglob("*.*")}
        assert {path.relative_to(there): path.read_bytes() for path in there.rglob("*.*")} == wanted


def test_other_values_for_a_simulation(tmp_path):
    build("me", tmp_path / "out", {"MAX_HOURS": 0.005})
    for number, line in ((1, "MAX_HOURS = 0.005  #"), (3, "MAX_HOURS = 0.005  #")):
        notebook = nbformat.read(tmp_path / "out" / f"04-training-run-{number}" / "04_training_run.ipynb", as_version=4)
        assert [cell for cell in notebook.cells if line in cell.source]


@pytest.mark.parametrize(
    ("cell", "values", "result"),
    [
        ('A = 1  # one\nB = "b"', {"B": 'say "b"'}, 'A = 1  # one\nB = "say \\"b\\""'),
        ('A = "ö"  # … ö\n\nB = 2', {"A": None}, "A = None  # … ö\n\nB = 2"),
        ("A = None  # until when", {"A": 8.5}, "A = 8.5  # until when"),
        ("A = 1", {}, "A = 1"),
    ],
)
def test_values_change_and_comments_stay(cell, values, result):
    assert set_parameters(cell, values) == result


def test_a_parameter_that_the_notebook_lacks_is_refused():
    with pytest.raises(UserError, match="sets C, but the notebook has A, B"):
        set_parameters("A = 1\nB = 2", {"A": 3, "C": 4})


def test_a_setting_that_no_kernel_has_is_refused(tmp_path):
    with pytest.raises(UserError, match="no kernel sets MAX_HOUR"):
        build("me", tmp_path / "out", {"MAX_HOUR": 1})


@pytest.mark.parametrize("name", ["", "Me", "me you", "me/you", "me_you", "mé"])
def test_no_user_name(name, tmp_path):
    with pytest.raises(UserError, match="user name"):
        build(name, tmp_path / "out")


def test_nothing_else_is_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds something other"):
        build("me", tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_the_command_says_whom_it_built_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["build_kernels.py", "--out", str(tmp_path / "out"), "--set", "PRESET=tiny"])
    build_kernels.main()
    assert "your-kaggle-name" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["build_kernels.py", "--out", str(tmp_path / "out"), "--set", "FOO=1"])
    with pytest.raises(SystemExit, match="2"):
        build_kernels.main()
    assert capsys.readouterr().err.startswith("kaggle/build_kernels.py: no kernel sets FOO")


# check.py


def test_what_is_committed_has_no_mistake(built):
    assert list(check(built)) == []


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"enable_interent": True}, "has 'enable_interent', which Kaggle would silently ignore: write enable_internet"),
        ({"accelerator": "GPU"}, "silently ignore"),
        ({"enable_internet": ...}, "no 'enable_internet'"),
        ({"enable_internet": "true"}, "must be a JSON boolean"),
        ({"dataset_sources": "me/clipxgpt-helpers"}, "must be a JSON list"),
        ({"machine_shape": "NvidiaTeslaP100"}, "retired: write 'NvidiaTeslaT4'"),
        ({"machine_shape": "gpu"}, "for two T4 cards"),
        ({"enable_gpu": False}, "for two T4 cards"),
        ({"title": "CLIPxGPT"}, "into the slug 'clipxgpt'"),
        ({"title": "Four", "id": "me/four"}, "has 4 characters"),
        ({"title": 17 * "ab " + "c", "id": "me/" + 17 * "ab-" + "c"}, "has 52 characters"),
        ({"id": "clipxgpt-01"}, "an id has the form owner/slug"),
        ({"id": "me/clipxgpt_01"}, "an id has the form owner/slug"),
        ({"language": "r"}, "write 'python'"),
        ({"kernel_type": "script"}, "write 'notebook'"),
        ({"code_file": "99.ipynb"}, "not a valid notebook"),
        ({"code_file": KERNEL_FILE}, "not a valid notebook"),
        ({"dataset_sources": ["hsankesara/flickr-image-dataset"]}, "lacks me/clipxgpt-helpers"),
        ({"dataset_sources": ["me/clipxgpt-helpers", "flickr-image-dataset"]}, "a source has the form owner/slug"),
        ({"kernel_sources": ["me/another"]}, "no folder here has that id"),
        ({"kernel_sources": ["me/clipxgpt-04-training-run-2"]}, "form a cycle"),
        ({"title": "CLIPxGPT 04 training run 2", "id": "me/clipxgpt-04-training-run-2"}, "is the id of 2 folders"),
    ],
)
def test_each_mistake_in_a_kernel_is_found(copy, values, complaint):
    edit(copy / FIRST / KERNEL_FILE, **values)
    found = list(check(copy))
    assert any(complaint in mistake for mistake in found), found
    assert not any("\n" in mistake for mistake in found)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"licence": []}, "silently ignore: write licenses"),
        ({"licenses": []}, "but holds exactly one"),
        ({"title": "CLIPxGPT"}, "into the slug 'clipxgpt'"),
        ({"subtitle": "too short"}, "has 9 characters"),
    ],
)
def test_each_mistake_in_the_dataset_is_found(copy, values, complaint):
    edit(copy / DATASET / DATASET_FILE, **values)
    found = list(check(copy))
    assert any(complaint in mistake for mistake in found), found


def test_a_dataset_that_cannot_be_imported_is_found(copy):
    shutil.rmtree(copy / DATASET / "helpers" / "tiny" / "clip")
    (copy / DATASET / "helpers" / "__init__.py").write_text("import nowhere")
    found = list(check(copy))
    assert any("cannot be imported (ModuleNotFoundError: No module named 'nowhere')" in mistake for mistake in found)
    assert any("helpers/tiny/clip/model.safetensors is missing" in mistake for mistake in found)


def test_a_notebook_that_was_not_run_is_found(copy):
    file = copy / FIRST / "01_clip_embedding_cache.ipynb"
    notebook = nbformat.read(file, as_version=4)
    notebook.cells[1].execution_count = None
    nbformat.write(notebook, file)
    assert any("was not run from top to bottom" in mistake for mistake in check(copy))


def test_a_notebook_too_large_for_kaggle_is_found(copy):
    file = copy / FIRST / "01_clip_embedding_cache.ipynb"
    notebook = nbformat.read(file, as_version=4)
    notebook.cells[0].source += "x" * 1_000_000
    nbformat.write(notebook, file)
    assert [*map(str, check(copy))] == [mistake for mistake in check(copy) if "Kaggle wants less than" in mistake] != []


def test_nothing_built_is_found(tmp_path):
    assert "build it first" in next(check(tmp_path))


def test_the_command_prints_the_push_in_order(built, copy, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check.py", str(built)])
    checks.main()
    pushed = re.findall(r"kernels push -p \S*/(\S+)", capsys.readouterr().out)
    sessions = [f"04-training-run-{number}" for number in (1, 2, 3)]
    assert pushed == [
        FIRST, "08-flickr8k", SECOND, "07-ablation", *sessions[1:], "05-qualitative-results", "06-evaluation",
    ]  # fmt: skip
    edit(copy / FIRST / KERNEL_FILE, kernel_type="script")
    monkeypatch.setattr(sys, "argv", ["check.py", str(copy)])
    with pytest.raises(SystemExit, match="1"):
        checks.main()
    assert capsys.readouterr().err.count("\n") == 1


def test_the_readme_has_the_commands_that_are_printed(built):
    readme = (ROOT / "kaggle" / "README.md").read_text()
    for command in push_commands(built):
        line = re.sub(r"-p \S*/", "-p build/kaggle/", command)
        assert line in readme or line.startswith("kaggle kernels status"), line


def test_the_order_follows_the_sources_and_not_the_names(copy):
    edit(copy / FIRST / KERNEL_FILE, kernel_sources=["me/clipxgpt-05-qualitative-results"])
    edit(copy / SECOND / KERNEL_FILE, kernel_sources=[])
    order = [folder.name for folder in push_order(kernels(copy))]
    assert order.index(FIRST) > order.index("05-qualitative-results")
    assert next(push_commands(copy)).startswith("kaggle datasets create")


# rehearse.py


def test_the_request_has_what_the_metadata_says(built):
    folder = built / "04-training-run-2"
    sent, complaint = record(lambda client: client.kernels_push(str(folder)))
    assert not complaint
    assert set(sent) == {"SaveKernel"}
    request = json.loads(sent["SaveKernel"])
    assert request["slug"] == "me/clipxgpt-04-training-run-2"
    assert request["machineShape"] == "NvidiaTeslaT4"
    assert request["enableInternet"] is True
    assert request["kernelDataSources"] == ["me/clipxgpt-04-training-run-1"]
    assert request["datasetDataSources"] == ["me/clipxgpt-helpers", "hsankesara/flickr-image-dataset"]
    pushed = nbformat.reads(request["text"], as_version=4)
    assert not [cell for cell in pushed.cells if cell.get("outputs")]
    assert any('PRESET = "small"' in cell.source for cell in pushed.cells)


def test_no_internet_is_sent_as_such(copy):
    edit(copy / FIRST / KERNEL_FILE, enable_internet=False)
    assert list(check(copy)) == []
    sent, _ = record(lambda client: client.kernels_push(str(copy / FIRST)))
    assert json.loads(sent["SaveKernel"])["enableInternet"] is False


def test_the_dataset_is_private_and_whole(built):
    sent, complaint = record(lambda client: client.dataset_create_new(str(built / DATASET), quiet=True, dir_mode="zip"))
    assert not complaint
    request = json.loads(sent["CreateDataset"])
    assert (request["ownerSlug"], request["slug"]) == ("me", DATASET)
    assert request["isPrivate"] is True
    assert len(request["files"]) == 2
    assert len(sent["helpers.zip"]) > 1_000_000  # with the tiny pair


def test_what_the_client_refuses_is_said_in_a_line(copy):
    edit(copy / FIRST / KERNEL_FILE, kernel_sources=["another"])
    (mistake,) = rehearse_kernel(copy / FIRST)
    assert mistake.startswith("the client does not push it: ")
    assert "\n" not in mistake


def test_every_key_that_the_client_reads_is_known():
    from kaggle.api.kaggle_api_extended import KaggleApi

    read = set(re.findall(r'meta_data(?:\.get\(|, )"(\w+)"', inspect.getsource(KaggleApi.kernels_push)))
    assert read == set(KERNEL_KEYS)
    assert read - {"code_file"} == set(KERNEL_FIELDS)
