"""Training data of the small pair: pictures as one tensor, facts as classes, and the scenes of the pair that ships."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from ..captions.splits import split_by_image
from ..data.images import open_picture, picture_path
from ..data.scene_captions import Scene
from ..data.scenes import scenes_of_world
from ..encoders.processor import CLIPImageProcessor
from ..errors import UserError

TINY_PAIRS_WORLD = {"images": 8000, "seed": 1000}  # the drawn world that the pair in helpers/tiny was trained on


def read_pictures(
    images: Path, names: list[str], processor: CLIPImageProcessor
) -> tuple[list[str], torch.Tensor, dict[str, str]]:
    """Return the names of the pictures that can be read, those N pictures, and for each other name the reason.

    The pictures are uint8 [N, 3, S, S]; `processor` resizes them and crops them to a square of S pixels. Raises
    UserError if none can be read.
    """
    kept, arrays, left_out = [], [], {}
    for name in tqdm(names, desc="reading pictures", unit="picture"):
        try:
            picture = open_picture(picture_path(images, name))
        except UserError as error:
            left_out[name] = str(error)
            continue
        values = processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        arrays.append(values.round().clip(0, 255).astype(np.uint8))
        kept.append(name)
    if not kept:
        raise UserError(f"none of the {len(names)} pictures in {images} can be read; the first: {left_out[names[0]]}")
    return kept, torch.from_numpy(np.stack(arrays)), left_out


@dataclass(frozen=True)
class Facts:
    """The true facts of each picture, as F classification tasks. A fact that does not apply (None) is its own class.

    by_name: {image_name: {fact: value}}. values: {fact: [value of class 0, value of class 1, …]}.
    """

    by_name: dict[str, dict[str, Any]]
    values: dict[str, list[Any]]

    @classmethod
    def read(cls, path: str | Path, names: list[str]) -> "Facts":
        """Return the facts of these pictures from a JSON file {image_name: {fact: value}}.

        Raises UserError if a picture has no facts there, or other facts than the rest.
        """
        try:
            truth = json.loads(Path(path).read_text(encoding="utf-8"))
            by_name = {name: dict(truth[name]) for name in names}
            kinds = {tuple(facts) for facts in by_name.values()}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} does not give the facts of every picture ({error!r}): leave facts out") from error
        if len(kinds) != 1:
            raise UserError(f"{path} gives other facts for some pictures than for others: leave facts out")
        (kind,) = kinds
        return cls(by_name, {fact: sorted({facts[fact] for facts in by_name.values()}, key=str) for fact in kind})

    def classes(self, names: list[str]) -> torch.Tensor:
        """Return the class of each fact of these N pictures, int64 [N, F]."""
        return torch.tensor(
            [[values.index(self.by_name[name][fact]) for fact, values in self.values.items()] for name in names]
        )

    def sizes(self) -> list[int]:
        """Return the number of classes of each of the F facts."""
        return [len(values) for values in self.values.values()]

    def right(self, names: list[str], answers: torch.Tensor) -> dict[str, float]:
        """Return the share of the N pictures in which each fact is named right, and in which "all" of them are.

        answers: one score per class, float [N, sum of sizes]; the class with the highest score is the named one.
        """
        named = torch.stack([part.argmax(dim=1) for part in answers.split(self.sizes(), dim=1)], dim=1)
        right = (named == self.classes(names)).float()  # [N, F]
        return dict(zip(self.values, right.mean(dim=0).tolist(), strict=True)) | {
            "all": right.prod(dim=1).mean().item()
        }


def pretraining_scenes() -> set[Scene]:
    """Return every scene that a training picture of the small pair in helpers/tiny shows."""
    scenes = scenes_of_world(**TINY_PAIRS_WORLD)
    splits = split_by_image(pd.DataFrame({"image_name": list(scenes)}))
    return {scenes[name] for name in splits.image_name[splits.split == "train"]}
