"""Build the folders to push to Kaggle: each kernel with its notebook, and the dataset with `helpers`."""

import argparse
import ast
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from helpers.errors import UserError

HERE = Path(__file__).parent
ROOT = HERE.parent
OUT = ROOT / "build" / "kaggle"
DATASET = "clipxgpt-helpers"  # the folder of the dataset, here and in the build
KERNEL_FILE, DATASET_FILE, PARAMETERS_FILE = "kernel-metadata.json", "dataset-metadata.json", "parameters.json"
USERNAME = "USERNAME"  # stands for the user's name in every metadata file
PLACEHOLDER = "your-kaggle-name"


def main() -> None:
    """Build the folders and print for which user. A user's mistake ends in one line on stderr and exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--username", default=PLACEHOLDER, help="your name on Kaggle, as in your profile's address")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="default: build/kaggle")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="replace a parameter's value")
    options = parser.parse_args()
    try:
        build(options.username, options.out, dict(map(_read_setting, options.set)))
    except UserError as error:
        print(f"kaggle/build_kernels.py: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"built in {options.out} for {options.username}")
    if options.username == PLACEHOLDER:
        print("before you push, build under your own name: make kaggle KAGGLE_USERNAME=name")


def build(username: str, out: Path = OUT, values: dict[str, Any] | None = None) -> None:
    """Write every kernel and the dataset to `out`, which is emptied first.

    values: parameters that replace those in parameters.json, in every kernel that sets them.
    Raises UserError if `username` cannot be a name on Kaggle, if `out` holds something other than a build, or if no
    kernel sets a given parameter.
    """
    if not (username.isascii() and username.replace("-", "").isalnum() and username == username.lower()):
        raise UserError(
            f"user name {username!r}: Kaggle's names have only lowercase letters, digits and dashes; give the one in "
            "your profile's address, kaggle.com/NAME"
        )
    if out.exists() and any(out.iterdir()) and not (out / DATASET / DATASET_FILE).exists():
        raise UserError(f"{out} holds something other than a build: name a new or empty folder")
    shutil.rmtree(out, ignore_errors=True)
    unused = set(values or {})
    for folder in sorted(path.parent for path in HERE.glob(f"*/{KERNEL_FILE}")):
        metadata = _for_user(folder / KERNEL_FILE, username)
        parameters = json.loads((folder / PARAMETERS_FILE).read_text(encoding="utf-8"))
        parameters |= {name: value for name, value in (values or {}).items() if name in parameters}
        unused -= set(parameters)
        source = ROOT / "notebooks" / json.loads(metadata)["code_file"]
        (out / folder.name).mkdir(parents=True)
        (out / folder.name / KERNEL_FILE).write_text(metadata, encoding="utf-8")
        (out / folder.name / source.name).write_text(_with_parameters(source, parameters), encoding="utf-8")
    if unused:
        raise UserError(f"no kernel sets {', '.join(sorted(unused))}: name one from a kaggle/*/{PARAMETERS_FILE}")
    shutil.copytree(ROOT / "helpers", out / DATASET / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("results", "photos"):  # plotted in notebooks, but too slow to compute there, and examples
        shutil.copytree(ROOT / "notebooks" / name, out / DATASET / "notebooks" / name)
    (out / DATASET / DATASET_FILE).write_text(_for_user(HERE / DATASET / DATASET_FILE, username), encoding="utf-8")


def set_parameters(cell: str, parameters: dict[str, Any]) -> str:
    """Return the source of a parameters cell with new values; order, comments and the rest stay the same.

    Raises UserError if the cell lacks a parameter.
    """
    assignments = [node for node in ast.parse(cell).body if isinstance(node, ast.Assign)]
    values = {node.targets[0].id: node.value for node in assignments}
    if unknown := sorted(set(parameters) - set(values)):
        raise UserError(f"it sets {', '.join(unknown)}, but the notebook has {', '.join(values)}: name one of these")
    lines = [line.encode() for line in cell.split("\n")]  # ast counts columns in bytes
    for name, value in parameters.items():
        old, number = values[name], values[name].lineno - 1
        literal = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
        lines[number] = lines[number][: old.col_offset] + literal.encode() + lines[number][old.end_col_offset :]
    return b"\n".join(lines).decode()


def _with_parameters(source: Path, parameters: dict[str, Any]) -> str:
    """Return the notebook at `source` as text, with new values in its parameters cell."""
    notebook = json.loads(source.read_text(encoding="utf-8"))
    (cell,) = (cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", []))
    try:
        cell["source"] = set_parameters("".join(cell["source"]), parameters).splitlines(keepends=True)
    except UserError as error:
        raise UserError(f"{PARAMETERS_FILE} for {source.name}: {error}") from None
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _for_user(file: Path, username: str) -> str:
    return file.read_text(encoding="utf-8").replace(f"{USERNAME}/", f"{username}/")


def _read_setting(text: str) -> tuple[str, Any]:
    """Split NAME=VALUE into a name and a value. A value that is no Python literal is text."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    main()
