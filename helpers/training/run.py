"""The run folder: everything that one training leaves behind, and the rules for going on with it.

config.json      the config, what it was trained on, the versions it was trained with
plan.json        what the run was going to take, by its own first steps (plan.py)
history.csv      one row every `log_every` steps, appended as it goes
samples.jsonl    captions of the same few validation pictures at every validation, appended as it goes
checkpoints/     what trains, every `eval_every` steps (checkpoint.py)
captioner/       the captioner, an ordinary folder for `from_pretrained`
captioner-best/  the same at its lowest validation loss, where that was before the last step
loss_lr.png      loss and learning rate in one figure
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import pandas as pd
import torch
import transformers
from tqdm import tqdm

from ..config import Config
from ..data.batches import CaptionBatches
from ..data.embedding_cache import EmbeddingCache
from ..errors import UserError
from ..runtime.files import atomic_path, only_one, sweep_partial, write_json, write_text
from ..runtime.kaggle import search_inputs
from .checkpoint import newest_step

FREE = ("micro_batches", "keep_checkpoints")  # fields of the config that may change when a run goes on
HISTORY = ["step", "epoch", "loss", "val_loss", "lr", "gpt2_lr", "captions_per_second", "elapsed_seconds"]


@dataclass(frozen=True)
class Run:
    """The paths of a run folder, and its history."""

    folder: Path

    @property
    def config_file(self) -> Path:
        return self.folder / "config.json"

    @property
    def history_file(self) -> Path:
        return self.folder / "history.csv"

    @property
    def samples_file(self) -> Path:
        return self.folder / "samples.jsonl"

    @property
    def plan_file(self) -> Path:
        return self.folder / "plan.json"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def captioner(self) -> Path:
        return self.folder / "captioner"

    @property
    def best_captioner(self) -> Path:
        return self.folder / "captioner-best"

    @property
    def figure(self) -> Path:
        return self.folder / "loss_lr.png"

    def history(self) -> pd.DataFrame:
        """The rows of history.csv; val_loss is NaN where none was measured."""
        if not self.history_file.exists():
            raise UserError(
                f"{self.folder} holds no history.csv: give the folder of a run, the --out of `clipxgpt train`"
            )
        return pd.read_csv(self.history_file)

    def samples(self) -> pd.DataFrame:
        """The captions of the sample pictures: a row a validation, indexed by its step, a column an image."""
        records = [json.loads(line) for line in _whole_lines(self.samples_file)]
        return pd.DataFrame(
            [record["captions"] for record in records], index=[record["step"] for record in records]
        ).rename_axis("step")

    def append(self, row: dict[str, Any]) -> None:
        """Add a row to the history; a single short write, so that a kill leaves at most one unfinished last line."""
        _append(self.history_file, ",".join("" if row[name] is None else str(row[name]) for name in HISTORY))

    def append_samples(self, step: int, captions: dict[str, str]) -> None:
        """Add the captions {image_name: caption} that the captioner writes after `step`, in the same way."""
        _append(self.samples_file, json.dumps({"step": step, "captions": captions}, ensure_ascii=False))

    def rewind(self, step: int) -> None:
        """Drop history and samples after `step`: the checkpoint there is where training goes on."""
        kept = [line for line in _whole_lines(self.history_file)[1:] if int(line.split(",")[0]) <= step]
        write_text(self.history_file, "\n".join([",".join(HISTORY), *kept]) + "\n")
        kept = [line for line in _whole_lines(self.samples_file) if json.loads(line)["step"] <= step]
        write_text(self.samples_file, "".join(f"{line}\n" for line in kept))


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file that end; a last one without an end was cut short by a kill."""
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def begin_run(folder: str | Path, config: Config, data: dict[str, Any], resume: bool) -> Run:
    """Open the run folder, new or to go on with.

    data: what identifies the training data. Raises UserError when the folder holds a run and `resume` is off, a run of
    another config or data, or something else that a run would write over.
    """
    refuse_taken(folder, resume)
    run = Run(Path(folder))
    if run.config_file.exists():
        try:
            found = json.loads(run.config_file.read_text(encoding="utf-8"))
            older = Config().to_dict() | found["config"]  # a field that is younger than the run had its default there
            parts = [("config", older, config.to_dict()), ("data", found["data"], data)]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{run.config_file} is no run's config.json: name another folder for the run") from error
        for part in parts:
            _check_same(run.folder, *part)
        sweep_partial(run.folder)
        return run
    if run.checkpoints.exists() or run.captioner.exists():
        raise UserError(
            f"{folder} holds checkpoints or a captioner, but no config.json: name another folder for the run"
        )
    versions = {library.__name__: library.__version__ for library in (torch, transformers, accelerate)}
    write_json(run.config_file, {"config": config.to_dict(), "data": data, "versions": versions})
    return run


def refuse_taken(folder: str | Path, resume: bool) -> None:
    """Raise UserError where no run can begin: at a file, or with `resume` off in a folder that holds a run."""
    run = Run(Path(folder))
    if run.folder.exists() and not run.folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder for the run")
    if run.config_file.exists() and not resume:
        raise UserError(f"{folder} already holds a run: go on with it by --resume, or name another folder")


def _check_same(folder: Path, what: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in [name for name in {**found, **wanted} if name not in FREE]:
        if found.get(name) != wanted.get(name):
            raise UserError(
                f"{folder} holds a run with {name} {found.get(name)!r}, here it is {wanted.get(name)!r}: a run goes on "
                f"with its own {what}; use that value, or name another folder"
            )


def carry_over(folder: str | Path) -> None:
    """Bring the run or cache of that name from Kaggle's inputs, where they have one that is further than what is here.

    Of several runs the one whose newest whole checkpoint is the furthest is taken, of several caches the one with the
    most shards. Where nothing is found, or on another machine, nothing happens.
    """
    folder = Path(folder)
    found = max(search_inputs(folder), key=_progress, default=None)
    if found is None:
        return
    with only_one(folder, "carrying over"):  # of torchrun's processes the first one copies and the others find it done
        if _progress(found) <= _progress(folder):
            return
        tqdm.write(f"{folder} goes on from {found}")
        with atomic_path(folder) as partial:
            shutil.copytree(found, partial, copy_function=shutil.copyfile)  # contents alone: inputs are read-only


def _progress(folder: Path) -> tuple[int, int]:
    """How far a run is, in steps, and how large a cache, in shards."""
    return newest_step(Run(folder).checkpoints) or 0, len(list(folder.glob("shard-*.safetensors")))


def identity(batches: CaptionBatches, embeddings: EmbeddingCache) -> dict[str, Any]:
    """What tells one training set from another: how much, and a hash of the captions in their order."""
    text = "\n".join(f"{row.image_name}\t{row.caption}" for row in batches.captions.itertuples())
    return {
        "captions": len(batches.captions),
        "images": len(batches.image_names),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "clip_sha256": embeddings.fingerprint["weights_sha256"],
    }
