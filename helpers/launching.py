"""Training on every card of this machine, from a notebook; from a terminal `torchrun` does the same."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from accelerate import notebook_launcher
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from tqdm import tqdm

from .config import Config
from .errors import UserError
from .runs import Run
from .training import train


def train_on_all_cards(
    config: Config, captions: pd.DataFrame, cache: str | Path, out: str | Path, max_hours: float | None = None,
    watch: Callable[[pd.DataFrame], None] | None = None, processes: int | None = None,
) -> Run:  # fmt: skip
    """`train(..., resume=True)` in one process a card (two on Kaggle's "T4 x2"), or here where there is one or none.

    processes: how many, where it shall not be one a card. The processes are forked, so nothing here may have used a
    card before; where something has, training goes on here with one card and says so. Raises what `train` raises.
    """
    processes = processes or max(1, torch.cuda.device_count())
    if processes > 1 and torch.cuda.is_initialized():
        tqdm.write(f"one of {processes} cards is used, for this kernel has used one already: restart it to use all")
        processes = 1
    if processes == 1:
        return train(config, captions, cache, out, True, max_hours=max_hours, watch=watch)
    try:
        notebook_launcher(train, (config, captions, cache, out, True, None, max_hours, watch), num_processes=processes)
    except ChildFailedError as error:
        failure = error.get_first_failure()[1]
        kind, _, reason = str((failure.message or {}).get("message", "")).partition(": ")
        if kind != UserError.__name__:
            raise
        raise UserError(reason) from error
    return Run(Path(out))
