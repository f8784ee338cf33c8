"""An estimate of what a run will take, from a rehearsal before it begins: a few of its own steps, timed and undone."""

import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..config import Config
from ..data.batches import CaptionBatches
from ..errors import NoRoomError, UserError
from ..runtime.device import device_memory, used_memory
from ..runtime.files import read_json, write_json
from .checkpoint import capture, checkpoints, restore
from .loss import CaptionLoss, validation_loss
from .optimizer import Learner
from .run import Run

SESSION_HOURS, QUOTA_HOURS = 9, 30  # Kaggle's limits for a session, and for GPU time per week
DISK_SPEED = 0.1e9  # bytes per second, a slow disk


@dataclass(frozen=True)
class Plan:
    """An estimate of the rest of a run, from the speed of its first steps; saved as plan.json in the run folder."""

    computing_on: str  # device, precision, and why
    memory_gb: float  # at the peak of the step on the longest captions
    device_memory_gb: float
    epochs: int  # of the whole run
    done: int  # steps that were done before this session
    total: int  # steps of the whole run
    step_seconds: float
    validations: int  # still to come
    validation_seconds: float  # each
    checkpoint_gb: float  # each
    captioner_gb: float
    disk_gb: float  # of the finished run: checkpoints and captioners

    @classmethod
    def read(cls, path: str | Path) -> "Plan":
        """Read what `save` wrote. Raises UserError if the file is missing or damaged."""
        try:
            plan = cls(**read_json(path))
            if all(type(value) in (int, float, str) for value in asdict(plan).values()):
                return plan
        except (OSError, ValueError, TypeError):
            pass
        raise UserError(f"{path} is no plan of a run: go on with the run by --resume, which writes it")

    def save(self, path: str | Path) -> None:
        """Save the plan as JSON."""
        write_json(path, asdict(self))

    def hours(self, done: int | None = None) -> float:
        """Return the hours from `done` steps to the end of the run, by default from the start of this session."""
        left = self.total - (self.done if done is None else done)
        validations = self.validations * left / max(1, self.total - self.done)
        return (left * self.step_seconds + validations * self.validation_seconds) / 3600

    @property
    def saving_seconds(self) -> float:
        """The time to keep free at a session's end: a step, a validation, and three times what a slow disk needs."""
        written = (self.checkpoint_gb + self.captioner_gb) * 1e9
        return self.step_seconds + self.validation_seconds + 3 * written / DISK_SPEED

    def remaining(self, done: int) -> str:
        """Return in words what remains after `done` steps."""
        return f"{self.total - done} steps remain, {_hours(self.hours(done))} or {_sessions(self.hours(done))}"

    def __str__(self) -> str:
        hours, left = self.hours(), self.total - self.done
        lines = [
            f"computing on {self.computing_on}",
            f"plan: {self.memory_gb:.1f} of {self.device_memory_gb:.1f} GB in use at a step on the longest captions",
            f"plan: {left} steps of {self.step_seconds:.3g} s and {self.validations} validations of "
            f"{self.validation_seconds:.3g} s: {_hours(hours)}, which on Kaggle is {_sessions(hours)} and "
            f"{hours / QUOTA_HOURS:.1%} of a week's {QUOTA_HOURS} GPU hours",
            f"plan: {self.disk_gb:.2g} GB on disk when it is done",
        ]
        if hours > SESSION_HOURS:
            fitting = int(self.epochs * left / self.total * SESSION_HOURS / hours)
            lines.append(
                f"plan: one session has room for {fitting} epochs (--epochs), or --resume goes on in the next one"
            )
        return "\n".join(lines)


def check_room(run: Run, plan: Plan, config: Config) -> None:
    """Raise NoRoomError if the disk has no room for what the run will write beside what it holds already."""
    saved = checkpoints(run.checkpoints)
    folders = (*saved, run.captioner, run.best_captioner)
    held = sum(file.stat().st_size for folder in folders for file in folder.glob("*"))
    number = min(config.keep_checkpoints + 1, len(saved) + plan.validations)
    needed = (number * plan.checkpoint_gb + 2 * plan.captioner_gb) * 1e9 - held
    if (free := shutil.disk_usage(run.folder).free) < needed:
        raise NoRoomError(
            f"no space left on the disk of {run.folder}: the run needs {needed / 1e9:.2g} GB more, but "
            f"{free / 1e9:.2g} GB are free: make room and go on with --resume, or name a folder on another disk"
        )


def rehearse(
    learner: Learner, loss: CaptionLoss, *, batches: CaptionBatches, held_out: CaptionBatches, done: int,
    computing_on: str,
) -> Plan:  # fmt: skip
    """Take a few steps from step `done` on, the first with the longest captions, and undo them to the bit.

    Raises UserError if a batch of the longest captions does not fit into memory, before any work is lost.
    """
    accelerator, optimizer, config = learner.accelerator, learner.optimizer.optimizer, learner.config
    device, left = accelerator.device, learner.total - done
    captioner = loss.captioner
    captured = capture(captioner, optimizer)
    scaler = accelerator.scaler.state_dict() if accelerator.scaler else None
    try:
        learner.learn(batches.longest(), done)
        steps = [_seconds(device, lambda n=n: learner.learn(batches.at(done + n), done + n)) for n in range(3)]
        validation = _seconds(device, lambda: validation_loss(loss, held_out, first=1))
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or _one_caption_fits(learner, batches, done)):
            raise
        raise UserError(
            f"the {config.batch_size} longest captions do not fit into the {device_memory(device):.1f} GB of {device} "
            f"at once: --micro-batches {2 * config.micro_batches} computes them in so many parts to the same gradient"
        ) from error
    restore(captioner, optimizer, captured)
    if scaler:
        accelerator.scaler.load_state_dict(scaler)
    checkpoint = (
        3 * sum(tensor.nbytes for tensor in captured.tensors.values()) / 1e9
    )  # the tensors that train and two moments
    whole = sum(tensor.nbytes for tensor in captioner.state_dict().values()) / 1e9
    return Plan(
        computing_on=computing_on,
        memory_gb=used_memory(device),
        device_memory_gb=device_memory(device),
        epochs=config.epochs,
        done=done,
        total=learner.total,
        step_seconds=statistics.median(steps),
        validations=-(-left // config.eval_every),
        validation_seconds=validation * len(held_out.in_order()),
        checkpoint_gb=checkpoint,
        captioner_gb=whole,
        disk_gb=checkpoint * (config.keep_checkpoints + 1) + 2 * whole,
    )


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    """Return how long `work` takes, until the card is done, too."""
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def _one_caption_fits(learner: Learner, batches: CaptionBatches, step: int) -> bool:
    """Try a single caption: if it works, the batch needs too much memory, which a CPU reports only in words."""
    try:
        learner.learn(batches.rows([0]), step)
    except RuntimeError:
        return False
    return True


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.1f} s"


def _sessions(hours: float) -> str:
    number = max(1, -int(-hours // SESSION_HOURS))
    return f"{number} session{'s' * (number > 1)} of {SESSION_HOURS} h"
