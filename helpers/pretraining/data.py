"""What the small pair is trained on: pictures as one tensor, text as lines, facts as classes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from ..data.images import open_picture, picture_path
from ..errors import UserError
from ..models.vision import CLIPImageProcessor


def decode(
    images: Path, names: list[str], processor: CLIPImageProcessor
) -> tuple[list[str], torch.Tensor, dict[str, str]]:
    """The names whose pictures open, the pictures, and why others do not.

    The pictures are uint8 [N, 3, S, S], resized and cut square by `processor`. Raises UserError where none opens.
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


def read_text(path: str | Path) -> list[str]:
    """The captions of a text file, one a line, or of a CSV with a column `comment` or `caption` (plain or .gz).

    Where the CSV has a column `split`, only its training rows are read, so that nothing held out is learned.
    """
    path = Path(path)
    try:
        lines = _column(path) if ".csv" in path.suffixes else path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as one caption a line or as a captions CSV ({error})") from error
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise UserError(f"{path} holds no captions; give a text file of one a line or a captions CSV")
    return captions


def _column(path: Path) -> list[str]:
    table = pd.read_csv(path, keep_default_na=False)  # a caption may well be the word "NA"
    column = next((name for name in ("comment", "caption") if name in table.columns), None)
    if column is None:
        raise UserError(f"{path} has no column comment or caption; its columns are {', '.join(table.columns)}")
    if "split" in table.columns:
        table = table[table["split"].isin(["train", "restval"])]
    return [str(caption) for caption in table[column]]


@dataclass(frozen=True)
class Facts:
    """What is true of each picture, as classes. A fact that does not apply (None) is a class of its own."""

    by_name: dict[str, dict[str, Any]]
    values: dict[str, list[Any]]  # of each fact, in the order of its classes

    @classmethod
    def read(cls, path: str | Path, names: list[str]) -> "Facts":
        """The facts of these pictures from a JSON object of objects. Raises UserError where one has none or others."""
        try:
            truth = json.loads(Path(path).read_text(encoding="utf-8"))
            by_name = {name: dict(truth[name]) for name in names}
            kinds = {tuple(facts) for facts in by_name.values()}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} does not give the facts of every picture ({error!r}); leave facts out") from error
        if len(kinds) != 1:
            raise UserError(f"{path} gives some pictures other kinds of facts than others; leave facts out")
        (kind,) = kinds
        return cls(by_name, {fact: sorted({facts[fact] for facts in by_name.values()}, key=str) for fact in kind})

    def labels(self, names: list[str]) -> torch.Tensor:
        """The class of each fact, int64 [N, F]."""
        return torch.tensor(
            [[values.index(self.by_name[name][fact]) for fact, values in self.values.items()] for name in names]
        )

    def sizes(self) -> list[int]:
        """How many classes each fact has."""
        return [len(values) for values in self.values.values()]

    def right(self, names: list[str], answers: torch.Tensor) -> dict[str, float]:
        """The share of pictures in which `answers`, float [N, sum of sizes], put the true class of each fact first."""
        hits = torch.stack([part.argmax(dim=1) for part in answers.split(self.sizes(), dim=1)], dim=1)
        right = (hits == self.labels(names)).float()  # [N, F]
        return dict(zip(self.values, right.mean(dim=0).tolist(), strict=True)) | {
            "all": right.prod(dim=1).mean().item()
        }
