"""From one session to the next: what an earlier one left among this one's inputs is brought here to go on with."""

import shutil
from pathlib import Path

from tqdm import tqdm

from .atomic import atomic_path
from .checkpoint import newest_step
from .inputs import search_inputs
from .locks import only_one
from .runs import Run


def carry_over(folder: str | Path) -> None:
    """Bring the run or cache of that name from Kaggle's inputs, where they have one that is further than what is here.

    Of several runs the one whose newest whole checkpoint is the furthest is taken, of several caches the one with the
    most shards. Where nothing is found, or on another machine, nothing happens.
    """
    folder = Path(folder)
    found = max(search_inputs(folder), key=_progress, default=None)
    if found is None:
        return
    with only_one(folder, "carrying over"):  # of torchrun's processes the first one copies and the others find it done
        if _progress(found) <= _progress(folder):
            return
        tqdm.write(f"{folder} goes on from {found}")
        with atomic_path(folder) as partial:
            shutil.copytree(found, partial, copy_function=shutil.copyfile)  # contents alone: inputs are read-only


def _progress(folder: Path) -> tuple[int, int]:
    """How far a run is, in steps, and how large a cache, in shards."""
    return newest_step(Run(folder).checkpoints) or 0, len(list(folder.glob("shard-*.safetensors")))
