"""Check the build offline, by Kaggle's rules that its client does not check and by a rehearsal of the client's push.

The rules and names come from the kaggle client 2.2 and its documentation (docs/kernels_metadata.md, docs/kernels.md and
docs/datasets_metadata.md of github.com/Kaggle/kaggle-cli).
"""

import argparse
import difflib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from build_kernels import DATASET, DATASET_FILE, KERNEL_FILE, OUT
from rehearse import rehearse_dataset, rehearse_kernel
from slugify import slugify

TEXT, FLAG, LIST = str, bool, list
KERNEL_KEYS = {
    "id": TEXT, "id_no": int, "title": TEXT, "code_file": TEXT, "language": TEXT, "kernel_type": TEXT,
    "is_private": FLAG, "enable_gpu": FLAG, "enable_tpu": FLAG, "enable_internet": FLAG, "machine_shape": TEXT,
    "dataset_sources": LIST, "competition_sources": LIST, "kernel_sources": LIST, "model_sources": LIST,
    "keywords": LIST, "docker_image": TEXT, "docker_image_pinning_type": TEXT,
}  # fmt: skip
KERNEL_NEEDS = ("id", "title", "code_file", "language", "kernel_type", "is_private", "enable_gpu", "enable_internet",
                "machine_shape", "dataset_sources", "kernel_sources")  # fmt: skip
DATASET_KEYS = {
    "id": TEXT, "id_no": int, "title": TEXT, "subtitle": TEXT, "description": TEXT, "licenses": LIST, "keywords": LIST,
    "resources": LIST, "expectedUpdateFrequency": TEXT, "userSpecifiedSources": TEXT, "image": TEXT,
}  # fmt: skip
DATASET_NEEDS = ("id", "title", "licenses")

ACCELERATOR = "NvidiaTeslaT4"  # two T4 cards, Kaggle's plain "GPU"; others are for some competitions only
RETIRED = {"NvidiaTeslaP100": ACCELERATOR, "TpuV38": "TpuV5E8", "Tpu1VmV38": "TpuV5E8"}
KERNEL_TITLE, DATASET_TITLE, SUBTITLE = (5, 50), (6, 50), (20, 80)  # characters, minimum and maximum
DATASET_BYTES = 200 * 10**9
IMPORTS = "import helpers.cli, pathlib; print(pathlib.Path(helpers.__file__).parent)"


def main() -> None:
    """Print one line per mistake and exit with status 1, or print the commands that push."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=OUT, help="default: build/kaggle")
    folder = parser.parse_args().folder
    mistakes = list(check(folder))
    for mistake in mistakes:
        print(f"kaggle/check.py: {mistake}", file=sys.stderr)
    if mistakes:
        sys.exit(1)
    print("the folders follow Kaggle's rules, and the client would send what they say; push them in this order:\n")
    print("\n".join(push_commands(folder)))


def check(out: Path) -> Iterator[str]:
    """Yield each mistake in the build at `out` as one line that names the value, the rule and the fix."""
    files = sorted(out.glob(f"*/{KERNEL_FILE}"))
    if not files:
        yield f"{out} holds no */{KERNEL_FILE}: build it first, with make kaggle"
        return
    mistakes = [*check_dataset(out / DATASET)]
    kernels = {}
    for file in files:
        kernels[file.parent], found = _read(file, KERNEL_KEYS, KERNEL_NEEDS)
        mistakes += found
    if not mistakes:
        for folder, metadata in kernels.items():
            mistakes += [f"{folder.name}: {mistake}" for mistake in check_kernel(folder, metadata)]
        mistakes += check_chain(kernels)
    if not mistakes:  # only then can the client's own code run
        mistakes += [f"{DATASET}: {mistake}" for mistake in rehearse_dataset(out / DATASET)]
        for folder in kernels:
            mistakes += [f"{folder.name}: {mistake}" for mistake in rehearse_kernel(folder)]
    yield from mistakes


def check_kernel(folder: Path, metadata: dict[str, Any]) -> Iterator[str]:
    """Yield the mistakes of one kernel whose metadata has the right keys and types."""
    yield from _check_name(metadata, KERNEL_TITLE)
    for key, wanted in (("language", "python"), ("kernel_type", "notebook")):
        if metadata[key] != wanted:
            yield f"{key} is {metadata[key]!r}, but these are Python notebooks: write {wanted!r}"
    yield from _check_accelerator(metadata["enable_gpu"], metadata["machine_shape"])
    for key in ("dataset_sources", "kernel_sources"):
        for source in metadata[key]:
            if not (isinstance(source, str) and _is_slug(source)):
                yield f"{key} has {source!r}, but a source has the form owner/slug: copy it from its address on Kaggle"
    helpers = f"{metadata['id'].split('/')[0]}/{DATASET}"
    if helpers not in metadata["dataset_sources"]:
        yield f"dataset_sources lacks {helpers}, so the notebook would find no helpers: add it"
    yield from _check_notebook(folder / metadata["code_file"])


def check_chain(kernels: dict[Path, dict[str, Any]]) -> Iterator[str]:
    """Yield the mistakes between kernels: a shared id, an unknown source, a cycle of sources."""
    names = [metadata["id"] for metadata in kernels.values()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{name} is the id of {names.count(name)} folders, so one push would replace another: give each its own"
    for folder, metadata in kernels.items():
        for source in metadata["kernel_sources"]:
            if source not in names:
                yield f"{folder.name}: kernel_sources has {source}, but no folder here has that id: correct it"
    rest = set(names) - {metadata["id"] for metadata in push_order(kernels).values()}
    if rest:
        yield f"kernel_sources form a cycle through {', '.join(sorted(rest))}: let one of them come first"


def check_dataset(folder: Path) -> Iterator[str]:
    """Yield the mistakes of the dataset that holds `helpers`."""
    metadata, mistakes = _read(folder / DATASET_FILE, DATASET_KEYS, DATASET_NEEDS)
    if not mistakes:
        mistakes += _check_name(metadata, DATASET_TITLE)
        mistakes += _check_length("subtitle", metadata.get("subtitle", " " * SUBTITLE[0]), SUBTITLE)
        if [*map(sorted, metadata["licenses"])] != [["name"]]:
            mistakes.append(f"licenses is {metadata['licenses']}, but holds exactly one: write [{{'name': 'other'}}]")
    yield from (f"{folder.name}: {mistake}" for mistake in mistakes)
    child = subprocess.run([sys.executable, "-B", "-c", IMPORTS], cwd=folder, capture_output=True, text=True)
    if child.stdout.strip() != str((folder / "helpers").resolve()):
        reason = child.stderr.strip().splitlines()[-1:] or ["Python finds another helpers"]
        yield f"{folder.name}: its helpers cannot be imported ({reason[0]}): rebuild it with make kaggle"
    for part in ("clip", "gpt2"):
        if not (folder / "helpers" / "tiny" / part / "model.safetensors").exists():
            yield f"{folder.name}: helpers/tiny/{part}/model.safetensors is missing: rebuild it with make kaggle"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > DATASET_BYTES:
        yield f"{folder.name}: it has {size} bytes, but Kaggle allows {DATASET_BYTES}: make it smaller"


def push_order(kernels: dict[Path, dict[str, Any]]) -> dict[Path, dict[str, Any]]:
    """Return the kernels, each after those whose output it reads, without those in or after a cycle."""
    ordered: dict[Path, dict[str, Any]] = {}
    for _ in kernels:
        done = {metadata["id"] for metadata in ordered.values()}
        ordered |= {folder: metadata for folder, metadata in sorted(kernels.items())
                    if folder not in ordered and done.issuperset(metadata["kernel_sources"])}  # fmt: skip
    return ordered


def push_commands(out: Path) -> Iterator[str]:
    """Yield the commands that push the build at `out`, in order."""
    out = Path(os.path.relpath(out))
    yield f"kaggle datasets create -p {out / DATASET} --dir-mode zip"
    kernels = {file.parent: json.loads(file.read_text(encoding="utf-8")) for file in out.glob(f"*/{KERNEL_FILE}")}
    for folder, metadata in push_order(kernels).items():
        yield f"kaggle kernels push -p {folder}"
        yield f"kaggle kernels status {metadata['id']}    # continue when it says COMPLETE"


def _read(file: Path, keys: dict[str, type], needs: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
    """Return the metadata in `file` and the mistakes in its keys and types."""
    name = f"{file.parent.name}/{file.name}"
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {}, [f"{name} is not a JSON file ({error}): rebuild it with make kaggle"]
    mistakes = []
    for key, value in metadata.items():
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1, 0.5)
            way_out = f"write {near[0]}" if near else "remove it"
            mistakes.append(f"{name} has {key!r}, which Kaggle would silently ignore: {way_out}")
        elif not isinstance(value, keys[key]):
            mistakes.append(f"{name} has {key} {value!r}, but it must be a JSON {_in_json(keys[key])}: change it")
    mistakes += [f"{name} has no {key!r}, so Kaggle would choose it: set it" for key in needs if key not in metadata]
    return metadata, mistakes


def _in_json(kind: type) -> str:
    return {TEXT: "string", FLAG: "boolean", LIST: "list", int: "number"}[kind]


def _check_name(metadata: dict[str, Any], length: tuple[int, int]) -> Iterator[str]:
    """Yield mistakes in the id and title. Kaggle makes the address from the title, so the two must agree."""
    name, title = metadata["id"], metadata["title"]
    if not _is_slug(name):
        yield f"id is {name!r}, but an id has the form owner/slug in lowercase letters, digits and dashes: correct it"
    elif name.split("/")[1] != slugify(title):
        yield f"id is {name!r}, but the title {title!r} turns into the slug {slugify(title)!r}: change one of them"
    yield from _check_length("title", title, length)


def _check_length(key: str, text: str, length: tuple[int, int]) -> Iterator[str]:
    if not length[0] <= len(text) <= length[1]:
        yield f"{key} {text!r} has {len(text)} characters, but Kaggle wants {length[0]} to {length[1]}: reword it"


def _is_slug(name: str) -> bool:
    return name.count("/") == 1 and all(part and part == slugify(part) for part in name.split("/"))


def _check_accelerator(gpu: bool, shape: str) -> Iterator[str]:
    if shape in RETIRED:
        yield f"machine_shape is {shape!r}, which Kaggle has retired: write {RETIRED[shape]!r}"
    elif (gpu, shape) not in ((True, ACCELERATOR), (False, "")):
        yield (f"enable_gpu is {json.dumps(gpu)} and machine_shape {shape!r}: write true and {ACCELERATOR!r} for two "
               "T4 cards, or false and '' for none")  # fmt: skip


def _check_notebook(file: Path) -> Iterator[str]:
    """Yield mistakes in a notebook, which must be valid, in Python, and saved after one run from top to bottom."""
    try:
        notebook = nbformat.read(file, as_version=4)
        nbformat.validate(notebook)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        reason = str(error).splitlines()[0]
        yield f"code_file {file.name} is not a valid notebook ({reason}): rebuild it with make kaggle"
        return
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    if counts != list(range(1, len(counts) + 1)):
        yield f"code_file {file.name} was not run from top to bottom: run all its cells once and commit it"
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield f"code_file {file.name} has the kernel {kernel!r}, but Kaggle's is 'python3': choose Python 3 and save it"


if __name__ == "__main__":
    main()
