"""pyproject.toml, environment.yml and requirements.lock agree; wheel and sdist hold all files the commands need."""

import ast
import itertools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"pytorch": "torch", "playwright-python": "playwright"}


def ranges():
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return {(r := Requirement(line)).name: r.specifier for line in itertools.chain(*lists)}


def locked():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_conda_users_get_the_same_ranges():
    text = (ROOT / "environment.yml").read_text()
    *listed, by_pip = yaml.safe_load(text)["dependencies"]
    *from_pypi, package = by_pip["pip"]
    assert package == "--editable ."
    found = {}
    for line in [*listed, *from_pypi]:
        requirement = Requirement(line)
        name = CONDA_NAMES.get(requirement.name, requirement.name)
        assert name not in found, f"{name} is listed twice"
        found[name] = requirement.specifier
    assert {name: found.pop(name, None) for name in ("python", "pip")} == {
        "python": Requirement(f"python{PROJECT['requires-python']}").specifier,
        "pip": Requirement("pip").specifier,
    }
    assert found == ranges()
    for line in text.splitlines():
        if re.match(r" +- (?!conda-forge|pip:|--editable)", line):
            assert "  # " in line, f"no word on what it is for: {line}"


def test_what_is_locked_lies_within_the_ranges():
    versions = locked()
    assert versions["torch"] == "2.13.0"
    for name, specifier in ranges().items():
        assert specifier.contains(versions[canonicalize_name(name)]), f"the locked {name} is not {specifier}"


def test_nothing_is_imported_that_is_not_declared():
    known = set(ranges()) | {"PIL", "IPython"} | sys.stdlib_module_names
    for path in (ROOT / "helpers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in names:
                assert name.split(".")[0] in known, f"{path.name} imports {name}"


def test_every_room_is_in_the_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {path.parent.relative_to(ROOT / "helpers") for path in (ROOT / "helpers").rglob("__init__.py")}
    assert set(listed) == {".".join(["clipxgpt", *room.parts]) for room in rooms}


def test_a_room_has_at_most_nine_modules_and_a_module_at_most_250_lines():
    for room in {path.parent for path in (ROOT / "helpers").rglob("*.py")}:
        modules = [path for path in room.glob("*.py") if not path.name.startswith("__")]
        assert len(modules) <= 9, f"{room.name} has {len(modules)} modules"
        for path in modules:
            lines = len(path.read_text("utf-8").splitlines())
            assert lines <= 250, f"{path.relative_to(ROOT)} has {lines} lines"


def test_imports_within_the_package_are_relative():
    for path in (ROOT / "helpers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module.split(".")[0] not in ("helpers", "clipxgpt"), path


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with a wheel and an sdist, built from a copy of the package."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "helpers", source / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    for kind in ("sdist", "wheel"):
        code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
        subprocess.run([sys.executable, "-c", code, out], cwd=source, check=True, capture_output=True)
    return out


def test_the_sdist_holds_the_pair_the_template_and_the_lists_of_words(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for name in (
        "helpers/tiny/clip/model.safetensors",
        "helpers/tiny/gpt2/tokenizer.json",
        "helpers/sharing/report.html",
        "helpers/export/page/index.html",
        "helpers/words/objects.txt",
        "helpers/words/people.csv",
        "helpers/photo/trained_on.json",
    ):
        assert name in names


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_installed_elsewhere_the_commands_find_everything(built, pattern, tmp_path):
    """Use the package beside a user's own helpers.py, with which it does not collide."""
    (archive,) = built.glob(pattern)
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    (work / "helpers.py").write_text("def mine(): pass\n")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", site]
    subprocess.run([*map(str, install), str(archive)], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{work}", "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(sys.executable, "-c", "import clipxgpt, helpers; print(clipxgpt.__file__); helpers.mine()")
    assert where.startswith(str(site))
    command = str(site / "bin" / "clipxgpt")
    run(command, "draw", "--out", "world", "--images", "40")
    world = ["--images", "world/flickr30k_images", "--captions", "world/results.csv"]
    run(command, "train", "--preset", "tiny", *world, "--out", "run", "--max-steps", "5", "--mapper-layers", "1")
    assert run(command, "predict", "-C", "run", "world/flickr30k_images/scene-00000.png").strip()
    run(command, "report", "run")
    assert "A training run of CLIPxGPT Captioner" in (work / "run" / "report.html").read_text(encoding="utf-8")
