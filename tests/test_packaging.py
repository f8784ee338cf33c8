"""pyproject.toml, environment.yml and requirements.lock speak of the same packages."""

import ast
import itertools
import re
import sys
import tomllib
from pathlib import Path

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
    listed = [line for line in yaml.safe_load(text)["dependencies"] if isinstance(line, str)]
    found = {}
    for line in listed:
        requirement = Requirement(line)
        found[CONDA_NAMES.get(requirement.name, requirement.name)] = requirement.specifier
    assert {name: found.pop(name, None) for name in ("python", "pip")} == {
        "python": Requirement(f"python{PROJECT['requires-python']}").specifier,
        "pip": Requirement("pip").specifier,
    }
    assert found == ranges()
    for line in text.splitlines():
        if re.match(r"  - (?!conda-forge|pip:)", line):
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
