"""One run of an ablation in a process of its own: trained with one thing changed, judged, and recorded.

Its folder keeps the run's records, `result.json` and its output (`log.txt`). Checkpoints and captioner are removed once
the result is there, because at real size a hundred runs would need 300 GB.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import signal
import sys
import threading
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from ..analysis.scene_errors import share_right
from ..config import VARIED_BESIDE, Config, check_value
from ..data.changes import PICTURES, pictures_sha256
from ..data.dataset import Data
from ..data.embedding_cache import EmbeddingCache
from ..errors import NoRoomError, UserError
from ..evaluation.scores import measure
from ..models.writer import CaptionWriter
from ..runtime.device import choose_accelerator
from ..runtime.files import only_one, read_object, write_json
from ..runtime.model_folders import captioner_design
from ..training.checkpoint import newest_step
from ..training.estimate import Plan
from ..training.loop import train
from ..training.run import Run
from .original_bugs import BUGS, Bug


class Failure(NamedTuple):
    """Why a trial ended without a result, in one line, and whether that is because the disk is full."""

    reason: str
    full: bool = False

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        full = isinstance(error, NoRoomError) or getattr(error, "errno", None) == errno.ENOSPC
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return cls(kind + " ".join(str(error).split()), full)


@dataclass(frozen=True)
class Trial:
    """A config, and what can be varied beside it (VARIED_BESIDE).

    defect: the name of one of the original's bugs. train_images: the number of training images, chosen by the seed;
    fewer images get more epochs, so that the number of steps stays the same. None takes all. Raises UserError on a
    wrong value, and on a design that the captioner to start from does not have.
    """

    config: Config
    defect: str = "none"
    train_images: int | None = None

    def __post_init__(self) -> None:
        check_value("defect", self.defect, choices=tuple(BUGS))
        design = (self.config.mapper, self.config.pooling)
        if self.defect in ("mixed-images", "all") and design != ("encoder", "pooled"):
            raise UserError(
                f"defect {self.defect} needs mapper encoder with pooling pooled, not {' with '.join(design)}"
            )
        if self.train_images is not None and self.train_images < 1:
            raise UserError(f"train_images is {self.train_images}, but must be at least 1")
        if self.config.start_from:
            captioner_design(self.config.start_from, self.config.to_dict())

    @classmethod
    def of(cls, base: Config, values: dict[str, Any]) -> "Trial":
        """Return the base with other values, for fields of the config or for what is varied beside it."""
        beside = {name: value for name, value in values.items() if name in VARIED_BESIDE}
        return cls(base.with_values(**{name: values[name] for name in values if name not in beside}), **beside)

    def name(self, data: str) -> str:
        """Return the name of its folder, the same for the same trial on the same data. data: their sha256."""
        text = json.dumps([self.config.to_dict(), self.defect, self.train_images, data])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def within(self, data: Data) -> "Trial":
        """Return the same trial, without a number if it takes all images. Raises UserError if there are too few."""
        there = len(data.image_names("train"))
        if (self.train_images or 0) > there:
            raise UserError(f"train_images is {self.train_images}, but there are only {there} to train on")
        return replace(self, train_images=None) if self.train_images == there else self

    def fit(self, data: Data) -> tuple[Config, pd.DataFrame]:
        """Return the config and the captions to train with."""
        if self.train_images is None:
            return self.config, data.captions
        names = np.random.default_rng(self.config.seed).permutation(data.image_names("train"))
        every = data.captions.split == "train"
        some = every & data.captions.image_name.isin(names[: self.train_images])
        steps = [-(-int(rows.sum()) // self.config.batch_size) for rows in (every, some)]
        epochs = max(1, round(self.config.epochs * steps[0] / steps[1]))
        return self.config.with_values(epochs=epochs), data.captions[some | ~every]


def captions_sha256(data: Data) -> str:
    """Return the hash of the captions and their splits, in their order."""
    return hashlib.sha256(data.captions.to_csv(index=False).encode()).hexdigest()


def run_trial(trial: Trial, data: Data, cache: str | Path, *, folder: Path) -> dict[str, Any]:
    """Train into `folder` or go on there, judge, and return the contents of its result.json.

    correct: the share of validation captions with every fact right; correct_seen: the same for as many training images;
    both only if `data` has facts. For photos cider and bleu_4 of greedy captions of the validation images, if
    pycocoevalcap is installed, and distinct, how many of them differ. val_loss: in nats per token. steps, seconds, and
    pictures_sha256, the hash of all pictures of the data; None if the cache does not know their files.
    """
    file = folder / "result.json"
    if read_result(file) is None:
        config, captions = trial.fit(data)
        bug = BUGS[trial.defect]
        run = train(config, bug.deal(captions, config.seed), cache, out=folder, resume=True, parts=bug.parts)
        if newest_step(run.checkpoints) != Plan.read(run.plan_file).total:
            raise UserError(f"the run in {folder} was stopped: the same command goes on with it")
        embeddings = EmbeddingCache.open(cache)
        result = _judged(run, replace(data, captions=captions), embeddings, bug=bug)
        write_json(file, result | {PICTURES: pictures_sha256(embeddings, data.image_names())})
    for rest in ("checkpoints", "captioner", "captioner-best"):
        shutil.rmtree(folder / rest, ignore_errors=True)
    return read_result(file)


def read_result(file: Path) -> dict[str, Any] | None:
    """Return the contents of a trial's result.json; None if there is none, or if it is damaged."""
    try:
        found = read_object(file)
    except (OSError, ValueError):
        return None
    numbers = (value for name, value in found.items() if name != PICTURES)
    finite = all(type(value) in (int, float) and math.isfinite(value) for value in numbers)
    return found if finite and found.keys() >= {"val_loss", "steps", "seconds"} else None


def run_in_process(
    trial: Trial, data: Data, cache: str | Path, *, folder: Path, card: int | None, tell: Connection
) -> None:
    """Run a trial as the whole work of a new process, on one thread of the CPU and on that card, if there is one.

    One thread, so that a trial's numbers do not depend on how many others run beside it. All output goes to
    `folder/log.txt`. If the trial fails, the process sends its Failure by `tell`, because a full disk has no room for
    the log, and ends with status 1.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its children
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        _log_to(folder)
        _use(card)
        with only_one(folder, "running a trial"):  # waits for a process that a killed parent has left behind
            run_trial(trial, data, cache, folder=folder)
    except Exception as error:
        tell.send(Failure.of(error))
        if not isinstance(error, UserError | OSError):
            raise
        print(error, file=sys.stderr)
        sys.exit(1)


def _log_to(folder: Path) -> None:
    """Send all output of this process to `folder/log.txt`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())


def _use(card: int | None) -> None:
    """Compute on one thread of the CPU and on that card, if there is one."""
    os.environ |= {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    if card is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[card] if visible else str(card)
    torch.set_num_threads(1)


def _end_with_the_parent() -> None:
    """End this process once its parent has ended in whatever way, or the same command might begin beside it."""
    parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)  # training then saves and stops


def _judged(run: Run, data: Data, cache: EmbeddingCache, *, bug: Bug) -> dict[str, Any]:
    history, result = run.history(), {}
    device = choose_accelerator("fp32").device
    writer = CaptionWriter.load(run.captioner, device=device, captioner_class=bug.parts.captioner)
    embedded = set(cache.image_names)
    held_out, seen = ([name for name in data.image_names(split) if name in embedded] for split in ("val", "train"))
    written = writer.write(cache.rows(held_out))
    if data.facts is not None:
        seen = seen[: len(held_out)]
        result["correct"] = share_right(held_out, written, data.facts)
        result["correct_seen"] = share_right(seen, writer.write(cache.rows(seen)), data.facts)
    else:
        references = data.rows("val").groupby("image_name").caption.apply(list)
        scores = measure(written, [references[name] for name in held_out], meteor=False)
        result |= {name: scores.measured[name].value for name in ("cider", "bleu_4") if name in scores.measured}
        result["distinct"] = len(set(written))
    return result | {
        "val_loss": float(history.val_loss.dropna().iloc[-1]),
        "steps": int(history.step.iloc[-1]),
        "seconds": float(history.elapsed_seconds.iloc[-1]),
    }
