"""Training on Kaggle: on all cards of a session, and from one session to the next."""

import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from accelerate import notebook_launcher
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from tqdm import tqdm

from ..config import Config
from ..errors import UserError
from ..runtime.files import atomic_path, only_one
from ..runtime.kaggle import search_inputs
from .checkpoint import newest_step
from .loop import Watch, train
from .run import Run


def train_on_all_cards(
    config: Config, captions: pd.DataFrame, cache: str | Path, *, out: str | Path, max_hours: float | None = None,
    watch: Watch | None = None, cards: int | None = None,
) -> Run:  # fmt: skip
    """Train or go on from a notebook in one process per card (two on Kaggle's "T4 x2"); torchrun does so on a terminal.

    cards: the number of processes, by default one per card, and one if there is none. The processes are forked, so
    nothing in this kernel may have used a card before; if something has, training uses one card and says so. Raises
    what `train` raises.
    """
    cards = cards or max(1, torch.cuda.device_count())
    if cards > 1 and torch.cuda.is_initialized():
        tqdm.write(f"one of {cards} cards is used, because this kernel has used one already: restart it to use all")
        cards = 1
    if cards == 1:
        return train(config, captions, cache, out=out, resume=True, max_hours=max_hours, watch=watch)
    with tempfile.TemporaryDirectory() as folder:
        refusal = Path(folder) / "refusal.txt"
        try:
            work = functools.partial(
                train, config, captions, cache, out=out, resume=True, max_hours=max_hours, watch=watch
            )
            notebook_launcher(_in_child, (work, refusal), num_processes=cards)
        except ChildFailedError as error:
            if not refusal.exists():
                raise
            raise UserError(refusal.read_text(encoding="utf-8")) from error
    return Run(Path(out))


def _in_child(work: Callable[[], object], refusal: Path) -> None:
    """Do the work as one of several processes; a UserError is left in the file `refusal`, where the parent reads it."""
    try:
        work()
    except UserError as error:
        refusal.write_text(str(error), encoding="utf-8")
        raise


def carry_over(folder: str | Path) -> None:
    """Copy the run or cache of that name from Kaggle's inputs to `folder`, if it is further than the one there.

    Among several runs, the one with the most steps at its newest whole checkpoint is taken; among several caches, the
    one with the most shards. If nothing is found, or on another machine, nothing happens.
    """
    folder = Path(folder)
    found = max(search_inputs(folder), key=_progress, default=None)
    if found is None:
        return
    with only_one(folder, "carrying over"):  # under torchrun the first process copies, and the others find it done
        if _progress(found) <= _progress(folder):
            return
        tqdm.write(f"{folder} goes on from {found}")
        with atomic_path(folder) as partial:
            shutil.copytree(found, partial, copy_function=shutil.copyfile)  # contents alone: inputs are read-only


def _progress(folder: Path) -> tuple[int, int]:
    """Return the steps of a run and the shards of a cache."""
    return newest_step(Run(folder).checkpoints) or 0, len(list(folder.glob("shard-*.safetensors")))
