"""A data set: a folder of pictures with its captions table, read from files or drawn."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ..errors import UserError
from ..runtime.kaggle import find_input
from .captions import read_captions, split_by_image
from .images import picture_folder
from .scene_captions import Scene
from .scenes import draw_world, read_facts

WORLD_IMAGES = 3000  # pictures of the drawn world that the tiny preset trains and is judged on


@dataclass(frozen=True)
class Data:
    """A folder of pictures and their captions.

    captions: DataFrame[image_name, caption, split]. left_out: rows of the captions file that could not be used,
    DataFrame[row, reason, text]. uncaptioned: files of the folder that no caption names; they are not used. facts: the
    scene of each image, for a drawn world.
    """

    images: Path
    captions: pd.DataFrame
    left_out: pd.DataFrame
    uncaptioned: list[str]
    facts: dict[str, Scene] | None = None

    def image_names(self, split: str | None = None) -> list[str]:
        """Return the names of the images of one split, or of all, in the order of the captions."""
        return list((self.captions if split is None else self.rows(split)).image_name.unique())

    def rows(self, split: str) -> pd.DataFrame:
        """Return the captions of one split: "train", "val" or "test"."""
        return self.captions[self.captions.split == split]


def open_data(images: str | Path, captions: str | Path, splits: str | Path | None = None) -> Data:
    """Read a captions file and split it by image. A `facts.json` beside the file makes it a drawn world.

    On Kaggle each path may be the end of a path among the inputs (runtime/kaggle.py). Raises UserError on a missing
    images folder, on facts of another world, and on whatever `read_captions` and `split_by_image` refuse.
    """
    images, captions, splits = (path if path is None else find_input(path) for path in (images, captions, splits))
    images = picture_folder(images)
    table, left_out = read_captions(captions)
    files = {path.name for path in images.iterdir() if path.is_file() and not path.name.startswith(".")}
    uncaptioned = sorted(files - set(table.image_name))
    data = Data(images, split_by_image(table, splits), left_out, uncaptioned)
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


def open_drawn_world(folder: str | Path = "data/drawn", *, images: int = WORLD_IMAGES, seed: int = 0) -> Data:
    """Open the drawn world in `folder`; the first call draws its `images` pictures."""
    world = draw_world(folder, images=images, seed=seed)
    return open_data(world / "flickr30k_images", world / "results.csv")
