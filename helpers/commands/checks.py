"""The checks of paths that come before PyTorch is imported, so that a mistake is answered at once.

On Kaggle the path of pictures, captions or splits may be the end of a path among the inputs, and its check returns the
whole path. Every check raises UserError.
"""

import glob
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..captions.names import ENDINGS
from ..captions.parquet import is_parquet
from ..config import Config
from ..data.images import picture_folder
from ..errors import UserError
from ..runtime.files import check_writable, home, is_device, read_object
from ..runtime.kaggle import find_input
from ..runtime.model_folders import captioner_design, find_model, refuse_taken
from ..runtime.streams import leads_to


def image_folder(path: Path) -> Path:
    return picture_folder(find_input(path))


def existing_file(path: Path | None) -> Path | None:
    """Return where a captions or splits file lies; None stays None."""
    if path is None:
        return None
    found = find_input(path)
    if not found.exists():
        raise UserError(f"{path} does not exist; give the path of a CSV file or of another kind that --help names")
    return found


def weights_file(path: Path) -> Path:
    """Return where a file of weights lies."""
    found = find_input(path)
    if not found.is_file():
        raise UserError(f"{path} is no file; give the file of published weights")
    return found


def photos(images: Path, captions: Path, splits: Path | None = None) -> tuple[Path, Path, Path | None]:
    """Return where pictures, captions and splits lie. For captions in Parquet the folder of pictures may be new."""
    if is_parquet(find_input(captions, new=True)):  # what is inside is unpacked into the folder
        folder = find_input(images, new=True)
        no_file_above(folder)
    else:
        folder = image_folder(images)
    return folder, existing_file(captions), existing_file(splits)


def photos_or_world(
    preset_name: str, *, images: Path | None, captions: Path | None, splits: Path | None, reading: Mapping[str, Any]
) -> tuple[Path | None, Path | None, Path | None]:
    """Return where photos lie, or None three times if there are none: then the preset tiny takes the drawn world.

    reading: how photos are read, by name of the option; the drawn world takes none of them.
    """
    if (images is None) != (captions is None):
        raise UserError("--images and --captions belong together: give both, or neither for the drawn world")
    if images is not None:
        return photos(images, captions, splits)
    if preset_name != "tiny":
        raise UserError(f"preset {preset_name} trains on photos of your own: give --images DIR and --captions FILE")
    for name, value in {"splits": splits, **reading}.items():
        if value:
            option = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{option} belongs to photos of your own: give --images and --captions too, or leave it out"
            )
    return None, None, None


def models(config: Config) -> None:
    """Check that the config's models are names on the hub or folders, and that its file of text is there.

    A captioner to start from must have the design that the config says.
    """
    existing_file(Path(config.text) if config.text else None)
    if config.start_from:
        captioner_design(config.start_from, config.to_dict())
    else:
        find_model(config.clip, "clip")
        find_model(config.gpt2, "gpt2")


def used(given: Mapping[str, Any], *configs: Config) -> None:
    """Check that at least one of the trainings makes use of every value of the config that the user gave."""
    unused = [_unused(config) for config in configs]
    for name in [name for name, value in given.items() if value not in (None, "")]:
        if all(name in each for each in unused):
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} is not used beside {unused[0][name]}: leave {option} out, or change the other")


def _unused(config: Config) -> dict[str, str]:
    """Return the fields of which a training makes no use, with the option because of which."""
    freezing = f"--freezing {config.freezing}"
    unused = {
        "last_n": freezing if config.freezing != "last-n" else None,
        "lora_rank": freezing if config.freezing != "lora" else None,
        "train_embeddings": freezing if config.freezing == ("frozen" if config.train_embeddings else "full") else None,
        "text": None if config.text_share else "--text-share 0",
        "clip": "--start-from" if config.start_from else None,
        "gpt2": "--start-from" if config.start_from else None,
    }
    return {name: beside for name, beside in unused.items() if beside}


def together(given: Mapping[str, bool], other: str, there: bool) -> None:
    """Check that options which mean nothing without another one are given only if that is there.

    given: by name whether the option is given. other: the other one in words. there: whether it is given.
    """
    if not there and (alone := [name for name, on in given.items() if on]):
        raise UserError(f"{alone[0]} means nothing without {other}: leave {alone[0]} out, or change that")


def clip(name: str | None) -> None:
    """Check that the name of a CLIP, if one is given, is a name on the hub or a folder."""
    if name is not None:
        find_model(name, "clip")


def output_folder(path: Path | None) -> None:
    """Check that a folder can be made at `path`, and files in it."""
    if path is None:
        return
    no_file_above(path)
    _try_to_write(path, path)


def no_file_above(path: Path) -> None:
    """Check that neither `path` nor a folder above it is a file."""
    if file := next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), None):
        raise UserError(f"{path} cannot be made ({file} is no folder): name another folder")


def output_file(path: Path | None) -> Path | None:
    """Return where a file is to be written that the user names: a link stands for what it points at."""
    if path is None or is_device(path):
        return path
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it")
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    if path.is_file() and any(leads_to(path, descriptor) for descriptor in (1, 2)):
        raise UserError(f"{path} is where the lines of this command go: name another file")
    no_file_above(path.parent)
    _try_to_write(path, path.parent)
    return path


def _try_to_write(path: Path, folder: Path) -> None:
    try:
        check_writable(folder)
    except OSError as error:
        raise UserError(
            f"{path} cannot be made ({error.strerror}): name another place, one that you may write to"
        ) from error


def pair_folder(path: Path, **made: Any) -> None:
    """Check that a pretrained pair can be saved there: models that are there already are of the same pretraining.

    made: what its report will say: its preset or None, its vision or None, and its seed.
    """
    output_folder(path)
    models = [path / name for name in ("clip", "gpt2") if (path / name).exists()]
    if not models:
        return
    try:
        report = read_object(path / "report.json")
    except (OSError, ValueError):
        raise UserError(f"{models[0]} is there already, but no report.json of pretrain: name another folder") from None
    found = {**(recipe if isinstance(recipe := report.get("recipe"), dict) else {}), **report}
    for name, value in made.items():
        if found.get(name) != value:
            raise UserError(f"{path} holds a pretraining with {name} {found.get(name)!r}, here it is {value!r}: "
                            "name another folder")  # fmt: skip


def evaluated(proof: Path, files: Iterable[Path]) -> None:
    """Check that of these files those that are there already were made by evaluate.

    proof: the metrics.json or trainings.json that it left then. The metrics.json of another program is none.
    """
    there = next((file for file in files if file.exists()), None)
    try:
        known = {"metrics.json": "embeddings", "trainings.json": "captioners"}[proof.name] in read_object(proof)
    except (OSError, ValueError):
        known = False
    if there and not known:
        raise UserError(f"{there} is there already, but no {proof.name} of evaluate: name another folder")


def no_input(written: Iterable[Path | None], read: Iterable[Path | None]) -> None:
    """Check that no file which a command writes is one that it reads, or one of a folder of captions that it reads."""
    inputs = {path.resolve() for path in read if path is not None}
    for path in filter(None, written):
        place = path.resolve()
        captions = place.suffix in (".txt", ".parquet") and place.exists()
        if place in inputs or (captions and not inputs.isdisjoint(place.parents)):
            raise UserError(f"{path} would be overwritten by what this command makes: name another place for that")


def run_folder(path: Path, resume: bool) -> None:
    """Check that a run can begin in the folder, or go on there."""
    output_folder(path)
    refuse_taken(path, resume)


def part(text: str) -> tuple[int, int]:
    """Return "2/4", the second of four parts, as (1, 4): its index from 0, and how many there are."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UserError(f"part is {text!r}, but must be 1/4 for the first of four, and so on to 4/4")
    return int(index) - 1, int(count)


def pictures(names: list[str]) -> list[Path]:
    """Return the files named by `names`, which may be files, folders and patterns such as "photos/**/*.jpg".

    A folder or pattern stands for its files that end like pictures, sorted. A file named twice is returned once.
    """
    if not names:
        raise UserError("no picture is named: clipxgpt predict PHOTO.jpg, or a folder, or a pattern in quotes")
    found: list[Path] = []
    for name in names:
        path = home(name)
        if path.is_dir():
            candidates = list(path.iterdir())
        elif not path.exists() and glob.has_magic(str(path)):
            candidates = [Path(match) for match in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        else:
            found.append(path)
            continue
        visible = [each for each in candidates if not each.name.startswith(".")]  # macOS leaves ._NAME.jpg beside NAME
        chosen = sorted(each for each in visible if each.suffix.lower() in ENDINGS and each.is_file())
        if not chosen:
            raise UserError(f"{name} has no picture: give a folder or a pattern of files ending in "
                            f"{', '.join(sorted(ENDINGS))}")  # fmt: skip
        found += chosen
    return list(dict.fromkeys(found))
