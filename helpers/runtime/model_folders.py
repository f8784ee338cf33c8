"""The places of models, captioners and runs, found without PyTorch, so that a wrong path is answered at once."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from .files import read_json, read_object, write_json
from .kaggle import search_inputs

DESIGN = ("pooling", "mapper", "prefix_length", "mapper_layers", "mapper_heads")  # fields that fix a captioner's shapes
TINY = Path(__file__).parents[1] / "tiny"  # the pair of the drawn world, which ships with the package
PHOTO = Path(__file__).parents[1] / "photo"  # the captioner of photos, which ships with the package

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")  # files by which a folder is known as a captioner's
RUN_CONFIG = "config.json"  # the file by which a folder is known as a run's
RUN_INPUTS = "inputs.json"  # where the pictures, captions and embeddings of a run lay
RUN_FILES = ("history.csv", "samples.jsonl", "plan.json", "checkpoints", "captioner", "captioner-best", "loss_lr.png")
TRAINED_ON = "trained_on.json"  # hashes of the picture files that a captioner was trained on, beside its weights


def find_model(name: str | Path, part: str) -> str:
    """Return the folder or hub name to load from. On Kaggle a hub name's weights may be attached as `weights/NAME`.

    "tiny" and "photo" are those that ship with the package. part: "clip" or "gpt2", the folder of the tiny pair.
    Raises UserError if `name` is a path, but no folder.
    """
    path = {"tiny": TINY / part, "photo": PHOTO}.get(name) or Path(name).expanduser()
    if path.is_dir():
        return str(path)
    text = str(name)
    if isinstance(name, Path) or path.is_absolute() or path.exists() or text.startswith(".") or text.count("/") > 1:
        raise UserError(f"{name} is no folder; give the folder of a model in the hub's layout, or its name on the hub")
    if name in ("tiny", "photo"):
        return str(path)
    attached = search_inputs(Path("weights") / path.name)  # on Kaggle, weights may come as a dataset or a model
    return str(attached[0]) if attached else text


def captioner_folder(folder: str | Path) -> Path:
    """Return `folder`, or the captioner of the run in `folder`; "photo" is the one that ships with the package.

    Raises UserError if there is none.
    """
    for place in (Path(folder), Path(folder) / "captioner", *([PHOTO] if str(folder) == "photo" else [])):
        if any(any(place.glob(pattern)) for pattern in WEIGHTS):
            return place
    raise UserError(f"{folder} holds no captioner: give the folder of a run or of a captioner, or train one first")


def refuse_taken(folder: str | Path, resume: bool) -> None:
    """Raise UserError if no run can begin there: at a file, in a folder that holds a run, or one it would write over.

    resume: a run that is there may go on.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder for the run")
    if (folder / RUN_CONFIG).exists():
        if not resume:
            raise UserError(f"{folder} already holds a run: go on with it by --resume, or name another folder")
        return
    taken = [name for name in RUN_FILES if (folder / name).exists()]
    if (folder / RUN_INPUTS).exists() and not _are_inputs(folder / RUN_INPUTS):
        taken.append(RUN_INPUTS)
    if taken:
        raise UserError(
            f"{folder} holds {taken[0]}, but no {RUN_CONFIG} of a run, which would write over it: name another folder"
        )


def read_run_config(folder: str | Path) -> dict[str, Any] | None:
    """Return what a run's config.json holds: {"config": {...}, "data": {...}, ...}; None if there is no such file.

    Raises UserError if it is no run's.
    """
    file = Path(folder) / RUN_CONFIG
    if not file.exists():
        return None
    try:
        found = read_json(file)
        if isinstance(found["config"], dict) and isinstance(found["data"], dict):
            return found
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise UserError(f"{file} is no run's config.json: name the folder of a run, or a new one")


def different_captioners(folders: list[Path]) -> None:
    """Check that these are captioners, and that no two have the same weights, as copies or by the same seed."""
    found: dict[tuple[bytes, ...], Path] = {}
    for folder in folders:
        place = captioner_folder(folder)
        if folders[1:]:
            weights = sorted(file for pattern in WEIGHTS for file in place.glob(pattern))
            other = found.setdefault(tuple(map(_sha256, weights)), folder)
            if other is not folder:
                raise UserError(f"{other} and {folder} have the same weights, which is no spread of trainings: give "
                                "each captioner once, trained with a seed of its own")  # fmt: skip


def captioner_design(folder: str | Path, wanted: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the fields of DESIGN of the captioner in `folder`.

    Raises UserError if there is none, or it is broken, or if a field in `wanted`, by name, has another value there.
    """
    file = captioner_folder(folder) / "config.json"
    try:
        config = read_json(file)
        found = {name: config[name] for name in DESIGN}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is no captioner's config ({type(error).__name__}): give another captioner") from error
    for name, value in found.items():
        if (asked := (wanted or {}).get(name, value)) != value:
            raise UserError(f"{name} is {asked!r}, but the captioner in {folder} has {value!r}: a training that starts "
                            "from it keeps its design; use that value, or leave this one out")  # fmt: skip
    return found


def read_trained_on(folder: Path) -> frozenset[str]:
    """Return the hashes of the picture files that the captioner in `folder` was trained on; none if it is not known.

    Raises UserError if they are broken.
    """
    file = folder / TRAINED_ON
    try:
        found = read_json(file)
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            return frozenset(found)
    except FileNotFoundError:  # a captioner of before, or one that was converted
        return frozenset()
    except (OSError, ValueError):
        pass
    raise UserError(f"{file} is broken: remove it, or give another captioner")


def remembered_inputs(
    run: Path, given: dict[str, Path | None], reading: dict[str, str | bool | None]
) -> tuple[dict[str, Path | None], dict[str, str | bool | None]]:
    """Return where pictures, captions, splits and embeddings lie, and how they are read.

    What is not given is as in the run's last session.
    """
    try:
        found = read_json(run / RUN_INPUTS)
        paths = {name: Path(found[name]) for name, path in given.items() if path is None and found.get(name)}
        there = {name: path for name, path in paths.items() if path.exists()}
        read = {name: found[name] for name, value in reading.items() if not value and found.get(name)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # a run of before, or a damaged file
        return given, reading
    read = {name: value for name, value in read.items() if isinstance(value, bool if name == "follow_links" else str)}
    return given | there, reading | read


def training_splits(captioners: Iterable[Path], images: Path, captions: Path) -> Path | None:
    """Return the splits file of the first run that was trained with one on these pictures or captions, if there is one.

    captioners: folders of runs, or of captioners in them.
    """
    wanted = {"images": str(images.resolve()), "captions": str(captions.resolve())}
    for folder in (place for captioner in captioners for place in (captioner, captioner.resolve().parent)):
        try:
            found = read_json(folder / RUN_INPUTS)
            if any(found[name] == path for name, path in wanted.items()) and Path(found["splits"]).exists():
                return Path(found["splits"])
        except (OSError, ValueError, LookupError, TypeError):  # no run's folder, a run without splits, a damaged file
            continue
    return None


def remember_inputs(run: Path, inputs: dict[str, Path | None], reading: dict[str, str | bool | None]) -> None:
    """Record them in the run folder."""
    write_json(run / RUN_INPUTS, {name: path and str(path.resolve()) for name, path in inputs.items()} | reading)


def _are_inputs(file: Path) -> bool:
    """Tell whether `remember_inputs` wrote the file, for a run that was refused before it had a config.json."""
    try:
        return {"images", "captions", "splits", "cache"} <= set(read_object(file))
    except (OSError, ValueError):
        return False


def _sha256(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()
