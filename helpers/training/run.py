"""The run folder: everything that one training leaves behind, and the rules for going on with it.

config.json      the config, the identity of the training data, the versions of the libraries
plan.json        what the run was expected to take (estimate.py)
history.csv      one row every `log_every` steps; its `step` is the number of steps done
samples.jsonl    captions of the same few validation pictures at every validation
checkpoints/     what trains, every `eval_every` steps (checkpoint.py)
captioner/       the captioner, an ordinary folder for `from_pretrained`
captioner-best/  the same at its lowest validation loss, if that was before the last step
loss_lr.png      loss and learning rate in one figure, if matplotlib is installed
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
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
from ..runtime.model_folders import RUN_CONFIG, refuse_taken
from .checkpoint import newest_step

FREE = ("micro_batches", "keep_checkpoints")  # fields of the config that may change when a run goes on
HISTORY = ["step", "epoch", "loss", "val_loss", "lr", "gpt2_lr", "captions_per_second", "elapsed_seconds"]


@dataclass(frozen=True)
class Run:
    """The paths of a run folder, and its history."""

    folder: Path

    @property
    def config_file(self) -> Path:
        return self.folder / RUN_CONFIG

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
        """Return the rows of history.csv; val_loss is NaN if none was measured. Raises UserError if there is none."""
        if not self.history_file.exists():
            raise UserError(
                f"{self.folder} holds no history.csv: give the folder of a run, the --out of `clipxgpt train`"
            )
        return pd.read_csv(self.history_file)

    def samples(self) -> pd.DataFrame:
        """Return the captions of the sample pictures: one row per validation, indexed by step, one column per image."""
        records = [json.loads(line) for line in _whole_lines(self.samples_file)]
        return pd.DataFrame(
            [record["captions"] for record in records], index=[record["step"] for record in records]
        ).rename_axis("step")

    def save_figure(self) -> None:
        """Save loss and learning rate as loss_lr.png; skipped without matplotlib, which a headless machine may lack."""
        if find_spec("matplotlib"):
            from ..plots.base import save_figure
            from ..plots.training import plot_loss_and_lr

            save_figure(plot_loss_and_lr(self.history()), self.figure)

    def append(self, row: dict[str, Any]) -> None:
        """Add a row to the history, in one short write: a kill leaves at most one unfinished last line."""
        _append(self.history_file, ",".join("" if row[name] is None else str(row[name]) for name in HISTORY))

    def append_samples(self, step: int, captions: dict[str, str]) -> None:
        """Add the captions {image_name: caption} that were written after `step` steps, in the same way."""
        _append(self.samples_file, json.dumps({"step": step, "captions": captions}, ensure_ascii=False))

    def rewind(self, step: int) -> None:
        """Drop history and samples after `step`, because training goes on from the checkpoint there."""
        kept = [line for line in _whole_lines(self.history_file)[1:] if int(line.split(",")[0]) <= step]
        write_text(self.history_file, "\n".join([",".join(HISTORY), *kept]) + "\n")
        kept = [line for line in _whole_lines(self.samples_file) if json.loads(line)["step"] <= step]
        write_text(self.samples_file, "".join(f"{line}\n" for line in kept))


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _whole_lines(path: Path) -> list[str]:
    """Return the lines of a file that end; a last line without an end was cut short by a kill."""
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def begin_run(folder: str | Path, config: Config, identity: dict[str, Any], *, resume: bool) -> Run:
    """Open the run folder, new or to go on with.

    identity: of the training data. Raises UserError if the folder holds a run and `resume` is off, a run of another
    config or other data, or something that a run would overwrite.
    """
    refuse_taken(folder, resume)
    run = Run(Path(folder))
    if run.config_file.exists():
        try:
            found = json.loads(run.config_file.read_text(encoding="utf-8"))
            older = Config.from_dict(found["config"])  # a field that is younger than the run had its default
            parts = [("config", older.to_dict(), config.to_dict()), ("data", found["data"], identity)]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{run.config_file} is no run's config.json: name another folder for the run") from error
        for what, before, now in parts:
            _check_same(run.folder, what, found=before, wanted=now)
        sweep_partial(run.folder)
        return run
    if run.checkpoints.exists() or run.captioner.exists():
        raise UserError(
            f"{folder} holds checkpoints or a captioner, but no config.json: name another folder for the run"
        )
    versions = {library.__name__: library.__version__ for library in (torch, transformers, accelerate)}
    write_json(run.config_file, {"config": config.to_dict(), "data": identity, "versions": versions})
    return run


def training_config(captioner: str | Path) -> Config | None:
    """Return the config of the run whose folder, or whose captioner's folder, is `captioner`; None if it is no run's.

    Raises UserError if the config is broken.
    """
    for folder in (Path(captioner), Path(captioner).resolve().parent):
        try:
            found = json.loads((folder / RUN_CONFIG).read_text(encoding="utf-8"))
            if isinstance(found.get("config"), dict):
                return Config.from_dict(found["config"])
        except FileNotFoundError:
            continue
        except (ValueError, AttributeError) as error:
            raise UserError(f"{folder / RUN_CONFIG} is no config.json: give another captioner") from error
    return None


def _check_same(folder: Path, what: str, *, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in [name for name in {**found, **wanted} if name not in FREE]:
        if found.get(name) != wanted.get(name):
            raise UserError(
                f"{folder} holds a run with {name} {found.get(name)!r}, here it is {wanted.get(name)!r}: a run goes on "
                f"with its own {what}; use that value, or name another folder"
            )


def carry_over(folder: str | Path) -> None:
    """Copy the run or cache of that name from Kaggle's inputs to `folder`, if it is further than the one there.

    Among several runs, the one with the most steps at its newest whole checkpoint is taken; among several caches, the
    one with the most shards. If nothing is found, or on another machine, nothing happens.
    """
    folder = Path(folder)
    found = max(search_inputs(folder), key=_progress, default=None)
    if found is None:
        return
    with only_one(folder, "carrying over"):  # under torchrun the first process copies, and the others find it done
        if _progress(found) <= _progress(folder):
            return
        tqdm.write(f"{folder} goes on from {found}")
        with atomic_path(folder) as partial:
            shutil.copytree(found, partial, copy_function=shutil.copyfile)  # contents alone: inputs are read-only


def _progress(folder: Path) -> tuple[int, int]:
    """Return the steps of a run and the shards of a cache."""
    return newest_step(Run(folder).checkpoints) or 0, len(list(folder.glob("shard-*.safetensors")))


def data_identity(batches: CaptionBatches, cache: EmbeddingCache) -> dict[str, Any]:
    """Return what tells one training set from another: its size, and hashes of its captions and of its CLIP."""
    text = "\n".join(f"{row.image_name}\t{row.caption}" for row in batches.captions.itertuples())
    identity = {
        "captions": len(batches.captions),
        "images": len(batches.image_names),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "clip_sha256": cache.fingerprint["weights_sha256"],
    }
    if batches.text:  # captions without an image
        ids = torch.cat(batches.text).numpy().tobytes()
        identity |= {"text_captions": len(batches.text), "text_sha256": hashlib.sha256(ids).hexdigest()}
    return identity
