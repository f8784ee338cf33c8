"""Functions that tests run in child processes; in a separate module that imports little, so that they start fast."""

import os
import threading
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
from tqdm import tqdm

from helpers.config import Config
from helpers.data.build_cache import build_cache
from helpers.data.dataset import Data
from helpers.models.loading import load_encoder


def own_bars() -> None:
    """Give progress bars a lock of their own. A process killed while holding the shared lock would stop all others."""
    tqdm.set_lock(threading.RLock())


def build(folder: Path, images: Path, names: list[str], clip: Path, sizes: dict[str, int], started: Event) -> None:
    own_bars()
    torch.set_num_threads(1)
    loaded = load_encoder(clip)
    started.set()
    build_cache(folder, images, names, clip=loaded, **sizes)


def train(config: Config, data: Data, cache: Path, folder: Path, began: Event) -> None:
    """Train to the end, resuming if a run exists; set `began` at the first row of the history."""
    from helpers.training.loop import train as train_captioner

    own_bars()
    train_captioner(config, data.captions, cache, out=folder, resume=True, watch=lambda _history: began.set())


def train_together(rank: int, port: int, config: Config, data: Data, cache: Path, folder: Path) -> None:
    """Train as process `rank` of two, as torchrun starts them."""
    from accelerate.state import AcceleratorState

    from helpers.training.loop import train as train_captioner

    AcceleratorState._reset_state(reset_partial_state=True)  # inherited from the parent process by the fork
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    for steps in (3, None):  # interrupted once
        train_captioner(config, data.captions, cache, out=folder, resume=True, max_steps=steps)
    torch.distributed.destroy_process_group()
