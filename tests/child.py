"""What a child process does in a test; apart, so that it imports little and starts soon."""

from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from helpers.embeddings import build_cache
from helpers.pretrained import load_clip


def build(folder: Path, images: Path, names: list[str], clip: Path, sizes: dict[str, int], started: Event) -> None:
    torch.set_num_threads(1)
    loaded = load_clip(clip)
    started.set()
    build_cache(folder, images, names, loaded, **sizes)
