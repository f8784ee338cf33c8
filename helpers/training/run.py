"""The run folder: everything that one training leaves behind, and the rules for going on with it.

config.json      the config, the identity of the training data, the versions of the libraries
inputs.json      where pictures, captions, splits and embeddings lay, if the command `train` made the run
plan.json        what the run was expected to take (estimate.py)
history.csv      one row every `log_every` steps; its `step` is the number of steps done
samples.jsonl    captions of the same few validation pictures at every validation
checkpoints/     what trains, every `eval_every` steps (checkpoint.py)
captioner/       the captioner, an ordinary folder for `from_pretrained`
captioner-best/  the same at its lowest validation loss, if that was before the last step
loss_lr.png      loss and learning rate in one figure, if matplotlib is installed
"""

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import accelerate
import pandas as pd
import torch
import transformers

from ..config import FREE, Config
from ..data.changes import PICTURES, captions_sha256, differ
from ..errors import UserError
from ..runtime.files import parse_json, read_object, sweep_partial, write_json, write_text
from ..runtime.model_folders import RUN_CONFIG, read_run_config, refuse_taken

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
        """Return the rows of history.csv; val_loss is NaN if none was measured. Raises UserError if there is none.

        A line that was damaged is left out, and so is a last line that a kill has cut.
        """
        if not self.history_file.exists():
            raise UserError(
                f"{self.folder} holds no history.csv: give the folder of a run, the --out of `clipxgpt train`"
            )
        rows, _ = _parsed(self.history_file, _row)
        return pd.read_csv(io.StringIO("\n".join([",".join(HISTORY), *rows])))

    def samples(self) -> pd.DataFrame:
        """Return the captions of the sample pictures: one row per validation, indexed by step, one column per image."""
        records = {step: line for line in _parsed(self.samples_file, _sample)[0] for step in [_sample(line)]}
        captions = [json.loads(line)["captions"] for line in records.values()]
        return pd.DataFrame(captions, index=list(records)).rename_axis("step")

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

    def rewind(self, step: int) -> list[str]:
        """Drop history and samples after `step`, because training goes on from the checkpoint there.

        Returns a line for each of the two files some of whose lines were damaged and are dropped, too.
        """
        said = []
        for path, parse, head in (
            (self.history_file, _row, ",".join(HISTORY) + "\n"),
            (self.samples_file, _sample, ""),
        ):
            lines, damaged = _parsed(path, parse)
            write_text(path, head + "".join(f"{line}\n" for line in lines if parse(line) <= step))
            if damaged:
                said.append(f"{damaged} lines of {path} are damaged and are dropped")
        return said


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _parsed(path: Path, parse: Callable[[str], int]) -> tuple[list[str], int]:
    """Return the lines of a file that `parse` reads, and the number of those that it does not.

    A last line without an end was cut short by a kill; it and the history's head are neither.
    """
    whole = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.is_file() else []
    kept = []
    for line in whole:
        try:
            parse(line)
        except (ValueError, LookupError, TypeError, AttributeError):
            continue
        kept.append(line)
    return kept, len(whole) - len(kept) - whole[:1].count(",".join(HISTORY))


def _row(line: str) -> int:
    """Return the steps done at a row of the history. Raises ValueError if the line is none."""
    step, *values = line.split(",")
    numbers = [float(value or "0") for value in values]
    if len(values) != len(HISTORY) - 1 or not all(map(math.isfinite, numbers)):
        raise ValueError("no row of the history")
    return int(step)


def _sample(line: str) -> int:
    """Return the steps done at a line of the samples. Raises ValueError, LookupError or the like if it is none."""
    record = parse_json(line)
    if not all(isinstance(caption, str) for caption in record["captions"].values()) or type(record["step"]) is not int:
        raise ValueError("no captions of sample pictures")
    return record["step"]


def begin_run(folder: str | Path, config: Config, identity: dict[str, Any], *, resume: bool) -> Run:
    """Open the run folder, new or to go on with.

    identity: of the training data. Raises UserError if the folder holds a run and `resume` is off, a run of another
    config or other data, or something that a run would overwrite.
    """
    refuse_taken(folder, resume)
    run = Run(Path(folder))
    if (found := read_run_config(run.folder)) is not None:
        config_before = Config.from_dict(found["config"])  # a field that is younger than the run had its default
        check_same(run.folder, "config", found=config_before.to_dict(), wanted=config.to_dict())
        check_same(run.folder, "data", found=found["data"], wanted=identity)
        sweep_partial(run.folder)
        return run
    versions = {library.__name__: library.__version__ for library in (torch, transformers, accelerate)}
    write_json(run.config_file, {"config": config.to_dict(), "data": identity, "versions": versions})
    return run


def training_config(captioner: str | Path) -> Config | None:
    """Return the config of the run whose folder, or whose captioner's folder, is `captioner`; None if it is no run's.

    Raises UserError if the config is broken.
    """
    for folder in (Path(captioner), Path(captioner).resolve().parent):
        try:
            found = read_object(folder / RUN_CONFIG)
            if isinstance(found.get("config"), dict):
                return Config.from_dict(found["config"])
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise UserError(f"{folder / RUN_CONFIG} is no config.json: give another captioner") from error
    return None


def check_same(folder: Path, what: str, *, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise UserError on the first value in which a run's config or data differ from what it should go on with."""
    for name in [name for name in {**found, **wanted} if name not in (*FREE, PICTURES)]:
        if found.get(name) != wanted.get(name):
            raise UserError(
                f"{folder} holds a run with {name} {found.get(name)!r}, here it is {wanted.get(name)!r}: a run goes on "
                f"with its own {what}; use that value, or name another folder"
            )


def other_pictures(folder: Path, identity: dict[str, Any]) -> bool:
    """Tell whether pictures of the run have changed since it began; identity: a `data_identity` of now."""
    found = read_run_config(folder)
    return found is not None and differ(found["data"].get(PICTURES), identity[PICTURES])


def check_captions(folder: str | Path, captions: pd.DataFrame) -> None:
    """Raise UserError if a run in `folder` cannot have been trained on the captions of this table.

    It is asked before anything is embedded. The run's own captions are fewer if some pictures could not be read.
    """
    found, rows = read_run_config(folder), captions[captions.split == "train"]
    before = found["data"].get("captions") if found else None
    if type(before) is not int or len(rows) > before:
        return
    now = {"captions": len(rows), "sha256": captions_sha256(rows)}
    check_same(Path(folder), "data", found={name: found["data"].get(name) for name in now}, wanted=now)
