"""A data set: a folder of pictures with its captions table, read from files or drawn."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ..captions.names import follow_links as follow
from ..captions.names import has_picture_ending, plain_name
from ..captions.parquet import is_parquet, unpack_pictures
from ..captions.read import read_captions
from ..captions.splits import split_by_image
from ..errors import UserError
from ..runtime.kaggle import find_input
from .images import folder_files, picture_folder, picture_path, why_missing
from .scene_captions import Scene
from .scenes import draw_world, read_facts

WORLD_IMAGES = 3000  # pictures of the drawn world that the tiny preset trains and is judged on


@dataclass(frozen=True)
class Data:
    """A folder of pictures and their captions.

    captions: DataFrame[image_name, caption, split]. left_out: rows of the captions file that could not be used,
    DataFrame[row, reason, text]. uncaptioned: picture files that no caption names, in the folder and in those below it
    that captions name; they are not used. facts: the scene of each image, for a drawn world.
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


def open_data(
    images: str | Path, captions: str | Path, splits: str | Path | None = None, *, image_column: str | None = None,
    caption_column: str | None = None, follow_links: bool = False,
) -> Data:  # fmt: skip
    """Read a captions file and split it by image. A `facts.json` beside the file makes it a drawn world.

    Pictures inside a Parquet file are unpacked into the folder `images`, which may be new. On Kaggle each path may be
    the end of a path among the inputs (runtime/kaggle.py).
    image_column, caption_column: see read_captions. follow_links: use pictures that are links out of their folder.
    Raises UserError on a missing images folder, on facts of another world, on whatever `read_captions` and
    `split_by_image` refuse, and if no picture may be used because of its name or link.
    """
    captions, splits = (path if path is None else find_input(path) for path in (captions, splits))
    if is_parquet(captions):
        images = find_input(images, new=True)
        unpack_pictures(captions, images, {"image_name": image_column})
    images = picture_folder(find_input(images))
    if follow_links:
        follow(images)
    table, left_out = read_captions(captions, image_column=image_column, caption_column=caption_column, images=images)
    found = _find_pictures(images, table.image_name.unique(), follow_links)
    table = table.assign(image_name=table.image_name.map(found.names))
    uncaptioned = sorted(found.files - found.used)
    data = Data(images, split_by_image(table, splits), left_out, uncaptioned)
    file = captions.with_name("facts.json")
    if captions.is_dir() or not file.exists():
        return data
    facts = read_facts(file)
    if unknown := [name for name in data.image_names() if name not in facts]:
        raise UserError(
            f"{file} lacks the facts of {len(unknown)} images, such as {unknown[0]}: give captions of its own drawn "
            "world, or a file that lies elsewhere"
        )
    return replace(data, facts=facts)


@dataclass(frozen=True)
class _Found:
    """Pictures of a captions file. names: {name in the file: name in the folder}. files: the picture files there.

    used: those of them that the captions name.
    """

    names: dict[str, str]
    files: set[str]
    used: set[str]


def _find_pictures(images: Path, names: Iterable[str], follow_links: bool) -> _Found:
    """Find each picture of a captions file, however its path is written; a missing one keeps its name.

    Names of one picture become one name. Raises UserError if no picture is found and there is a reason for it, such as
    links that are not followed, beside that the folder does not hold it.
    """
    names = list(names)
    below = {plain_name(name.replace("\\", "/")).rpartition("/")[0] for name in names}
    files = folder_files(images, below, links=follow_links)
    known, by_file, reason = {}, {}, None
    for name in names:
        file = name if name in files else None
        if file is None:
            try:
                path = picture_path(images, name)
                file = path.relative_to(images).as_posix() if path.exists() else None
                reason = reason or (None if file else why_missing(images, path))
            except UserError as error:
                reason = reason or str(error)
        # An accent that the disk spells in another way, as macOS does, stays what the captions say.
        same = file is None or unicodedata.normalize("NFC", file) == unicodedata.normalize("NFC", name)
        known[name] = name if file is None else by_file.setdefault(file, name if same else file)
    if not by_file and reason:
        raise UserError(f"none of the {len(names)} pictures in {images} can be used: {reason}")
    return _Found(known, {file for file in files if has_picture_ending(file)}, set(by_file))


def open_drawn_world(folder: str | Path = "data/drawn", *, images: int = WORLD_IMAGES, seed: int = 0) -> Data:
    """Open the drawn world in `folder`; the first call draws its `images` pictures."""
    world = draw_world(folder, images=images, seed=seed)
    return open_data(world / "flickr30k_images", world / "results.csv")
