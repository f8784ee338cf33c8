"""Kaggle's inputs, searched by name, because their mount points differ.

Seen so far: /kaggle/input/SLUG, /kaggle/input/datasets/USER/SLUG, /kaggle/input/notebooks/USER/SLUG, and for models
/kaggle/input/models/USER/SLUG/FRAMEWORK/VARIATION/VERSION. On other machines nothing is searched.
"""

import os
from pathlib import Path

from ..errors import UserError
from .files import home

INPUTS = Path("/kaggle/input")
DEPTH = 8  # folders below INPUTS that are searched


def search_inputs(name: str | Path) -> list[Path]:
    """Return all files and folders among the inputs whose path ends with `name`, the least deep ones first."""
    found, level = [], [INPUTS] if INPUTS.is_dir() and not Path(name).is_absolute() else []
    for _ in range(DEPTH):
        here = [folder / name for folder in level if (folder / name).exists()]
        found += here
        # scandir, because asking each of the tens of thousands of files in a photo folder for its kind takes long.
        inner = (Path(child) for folder in level for child in os.scandir(folder) if child.is_dir())
        level = sorted(child for child in inner if child not in here)
    return found


def find_input(name: str | Path, *, new: bool = False) -> Path:
    """Return `name`, or the one input whose path ends with it if `name` does not exist and there are inputs.

    A leading `~` becomes the home folder. new: the path may also be one that does not exist yet. Raises UserError if
    the inputs have no such path, or two equally deep ones.
    """
    path = home(name)
    if path.exists() or not INPUTS.is_dir():
        return path
    found = search_inputs(name)
    if not found and new:
        return path
    if not found:
        attached = ", ".join(sorted(path.name for path in INPUTS.iterdir())) or "nothing"
        raise UserError(f"{name} is neither here nor in {INPUTS} (attached: {attached}): attach its dataset or output")
    nearest = [path for path in found if len(path.parts) == len(found[0].parts)]
    if len(nearest) > 1:
        raise UserError(f"{name} may be {nearest[0]} or {nearest[1]}: give more of the path")
    return nearest[0]
