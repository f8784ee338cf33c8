"""The road in three calls: pictures and captions, their cached embeddings, a captioner; each is reused or made."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pandas as pd
import torch
from accelerate import PartialState

from .accelerator import choose_accelerator
from .config import Config
from .embeddings import EmbeddingCache, build_cache
from .errors import UserError
from .flickr import read_captions, split_by_image
from .inputs import find_input
from .pretrained import load_clip
from .runs import Run
from .scenes import Scene, draw_world, read_facts
from .shards import WHOLE, Part
from .training import train
from .writer import CaptionWriter

DRAWN_CACHES = {"pooled": Path("data/drawn-embeddings"), "patches": Path("data/drawn-patches")}
WORLD_IMAGES = 3000  # pictures of the drawn world that the tiny preset trains and is judged on


@dataclass(frozen=True)
class Data:
    """A folder of pictures and their captions table (image_name, caption, split).

    left_out: rows of the captions file that could not be used (row, reason, text). uncaptioned: files of the folder
    that no caption names, and which are not used. facts: the drawn world's truth.
    """

    images: Path
    captions: pd.DataFrame
    left_out: pd.DataFrame
    uncaptioned: list[str]
    facts: dict[str, Scene] | None = None

    def image_names(self, split: str | None = None) -> list[str]:
        """The images of one split, or of all, in the order of the captions."""
        chosen = self.captions if split is None else self.captions[self.captions.split == split]
        return list(chosen.image_name.unique())


def open_data(images: str | Path, captions: str | Path, splits: str | Path | None = None) -> Data:
    """Read a captions file and split it by image. A `facts.json` beside the file makes it a drawn world.

    On Kaggle each of the paths may be the end of one among the inputs (inputs.py). Raises UserError on a missing images
    folder, on facts of another world, and on whatever `read_captions` and `split_by_image` refuse.
    """
    images, captions, splits = (path if path is None else find_input(path) for path in (images, captions, splits))
    if not Path(images).is_dir():
        raise UserError(f"{images} is no folder: give the folder that holds the pictures")
    table, left_out = read_captions(captions)
    files = {path.name for path in Path(images).iterdir() if path.is_file() and not path.name.startswith(".")}
    uncaptioned = sorted(files - set(table.image_name))
    data = Data(Path(images), split_by_image(table, splits), left_out, uncaptioned)
    file = Path(captions).with_name("facts.json")
    if not file.exists():
        return data
    facts = read_facts(file)
    if unknown := [name for name in data.image_names() if name not in facts]:
        raise UserError(
            f"{file} lacks the facts of {len(unknown)} images, such as {unknown[0]}: give captions of its own drawn "
            "world, or a file that lies elsewhere"
        )
    return replace(data, facts=facts)


def open_drawn_world(folder: str | Path = "data/drawn", images: int = WORLD_IMAGES, seed: int = 0) -> Data:
    """The drawn world, drawn on the first call."""
    world = draw_world(folder, images, seed)
    return open_data(world / "flickr30k_images", world / "results.csv")


def open_cache(data: Data, config: Config, folder: str | Path | None = None, part: Part = WHOLE) -> EmbeddingCache:
    """The embeddings of all images of `data`, or of a part of them, by the config's CLIP; what is missing is added.

    folder: where they lie; without it the drawn world's, which has one for each pooling. Under torchrun the
    processes share the work out, and all wait until it is done. A card is used only where something has to be embedded.
    """
    folder = folder or DRAWN_CACHES[config.pooling]
    clip, names = load_clip(config.clip, pooling=config.pooling), data.image_names()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        return build_cache(folder, data.images, names, clip, part=part)
    # It gives each process a card of its own. The timeout is long, for the processes are not done at the same time.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
    build_cache(folder, data.images, names, clip, part=part.split(state.process_index, processes))
    state.wait_for_everyone()
    return EmbeddingCache.open(folder)


def open_captioner(
    data: Data, config: Config, cache: EmbeddingCache, out: str | Path = "runs/tiny",
    watch: Callable[[pd.DataFrame], None] | None = None, finish: bool = True,
) -> tuple[Run, CaptionWriter]:  # fmt: skip
    """The captioner of the run at `out`, trained to its end on the first call and loaded on the next.

    finish: go on with a run that was stopped; without it, its captioner is taken as the last session left it.
    """
    run = Run(Path(out))
    if finish or not run.captioner.exists():
        run = train(config, data.captions, cache.folder, out, resume=True, watch=watch)
    return run, CaptionWriter.load(run.captioner, choose_accelerator("fp32").device)
