"""The questions that the tables in notebooks/results answer: which arms are compared, with which, by which measure.

    effects = answer("mapping module", "notebooks/results")

Notebooks 02, 03 and 07 and docs/results.md take their figures from here, so that they say the same.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..errors import UserError
from .significance import best_of, paired_effects


@dataclass(frozen=True)
class Question:
    """A comparison within one table. Its measure is the table's own: correct, or cider on photos.

    table: the CSV's name without its ending. by: the column that names the arms. base: the arm that the others are
    compared with. tuned: a column of which each arm gets its own best value. only: (column, value) of the rows that
    count. retuned: (arm, table, column); that arm is replaced by the same one at its own best value of the column.
    """

    table: str
    by: str
    base: object
    tuned: str = ""
    only: tuple[str, object] | None = None
    retuned: tuple[tuple[str, str, str], ...] = ()


OWN_RATES = (("frozen", "frozen_lr", "mapper_lr"), ("lora", "lora_lr", "gpt2_lr"))
ON_PHOTOS = tuple((arm, f"photo/{table}", column) for arm, table, column in OWN_RATES)
QUESTIONS = {
    "mapping module": Question("mapper", "mapper", "encoder", tuned="mapper_lr"),
    "learning rate of the encoder": Question("mapper", "mapper_lr", 2e-4, only=("mapper", "encoder")),
    "learning rate of the MLP": Question("mapper", "mapper_lr", 2e-4, only=("mapper", "mlp")),
    "prefix length": Question("prefix_length", "prefix_length", 4),
    "freezing": Question("freezing", "freezing", "first-and-last", retuned=OWN_RATES),
    "training GPT-2's embeddings": Question("train_embeddings", "train_embeddings", True),
    "patches": Question("pooling", "pooling", "pooled"),
    "precision": Question("precision", "precision", "fp32"),
    "defects of the original": Question("defect", "defect", "none"),
    "training pictures": Question("train_images", "train_images", 2378),
    "photos: image encoder": Question("photo/clip", "clip", "runs/photo/encoder"),
    "photos: language model": Question("photo/gpt2", "gpt2", "runs/photo/language/gpt2"),
    "photos: mapping module": Question("photo/mapper", "mapper", "mlp", tuned="mapper_lr"),
    "photos: prefix length": Question("photo/prefix_length", "prefix_length", 4),
    "photos: freezing": Question("photo/freezing", "freezing", "full", retuned=ON_PHOTOS),
    "photos: training photos": Question("photo/train_images", "train_images", 5705),
    "photos: pooled or patches": Question("photo/pooling", "pooling", "pooled"),
    "photos: encoder from scratch": Question("photo/scratch", "clip", "runs/photo/encoder"),
}


def answered(folder: str | Path) -> list[str]:
    """Return the questions whose tables are in the folder."""
    return [name for name, question in QUESTIONS.items() if _file(folder, question.table).exists()]


def answer(name: str, folder: str | Path) -> pd.DataFrame:
    """Return the effects (`paired_effects`) of a question's arms. Raises UserError if its table is not in the folder.

    An arm at its own best value of another column is named with it: "mlp, mapper_lr 0.0007". That value was chosen by
    the same validation runs that are compared.
    """
    question = QUESTIONS[name]
    if not _file(folder, question.table).exists():
        raise UserError(f"{_file(folder, question.table)} is not there: make results, or make photo-ablations")
    rows = pd.read_csv(_file(folder, question.table))
    measure = measure_of(rows)
    if question.only:
        column, value = question.only
        rows = rows[rows[column] == value]
    if question.tuned:
        rows = _at_their_best(rows, question.by, question.tuned, measure=measure)
    for arm, table, column in question.retuned:
        if _file(folder, table).exists():
            tried = pd.read_csv(_file(folder, table)).assign(**{question.by: arm})
            best = _at_their_best(tried, question.by, column, measure=measure)
            rows = pd.concat([rows[rows[question.by] != arm], best])
    base = next((arm for arm in rows[question.by] if str(arm).startswith(f"{question.base}, ")), question.base)
    return paired_effects(rows, question.by, measure=measure, base=base)


def measure_of(results: pd.DataFrame) -> str:
    """Return the column by which arms are compared: facts where they are known, else CIDEr, else the loss."""
    return next(name for name in ("correct", "cider", "val_loss") if name in results)


def _at_their_best(rows: pd.DataFrame, by: str, tuned: str, *, measure: str) -> pd.DataFrame:
    best = best_of(rows, by, tuned, measure=measure)
    return best.assign(**{by: [f"{arm}, {tuned} {value:g}" for arm, value in zip(best[by], best[tuned], strict=True)]})


def _file(folder: str | Path, table: str) -> Path:
    return Path(folder) / f"{table}.csv"
