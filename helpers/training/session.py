"""What a training needs before its first step: Accelerate, batches, the optimizer's groups, the data's identity."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from tqdm import tqdm

from ..config import Config
from ..data.batches import CaptionBatches
from ..data.embedding_cache import EmbeddingCache
from ..errors import UserError
from ..models.writer import CaptionWriter
from ..plots.base import save_figure
from ..plots.training import plot_loss_and_lr
from ..runtime.device import Choice, used_memory
from .run import Run


def make_accelerator(choice: Choice, tracker: str | None, folder: str | Path) -> Accelerator:
    """Accelerate on that device in that precision. Raises UserError on a tracker it does not know or find installed.

    tracker: the name of one of Accelerate's trackers, which then writes to `folder` where it writes files.
    """
    if tracker is not None and tracker not in map(str, get_available_trackers()):
        if tracker not in LOGGER_TYPE_TO_CLASS:
            raise UserError(f"tracker is {tracker!r}, but must be one of {', '.join(LOGGER_TYPE_TO_CLASS)}")
        raise UserError(f"tracker is {tracker!r}, which is not installed: pip install {tracker.replace('_', '-')}")
    AcceleratorState._reset_state()  # or a second run in this process could not compute in another precision
    return Accelerator(
        cpu=choice.device.type == "cpu",
        mixed_precision="no" if choice.precision == "fp32" else choice.precision,
        log_with=tracker,
        project_dir=folder,
    )


def split_batches(
    config: Config,
    captions: pd.DataFrame,
    split: str,
    embeddings: EmbeddingCache,
    writer: CaptionWriter,
    say: Callable[[str], None],
) -> CaptionBatches:
    """The batches of one split; what is left out of them is counted and named."""
    max_tokens = min(config.max_caption_tokens, writer.captioner.longest_caption)
    rows = captions[captions.split == split]
    if rows.empty:
        raise UserError(
            f"no caption is in split {split!r}, but training needs some in train and in val: give more pictures, or "
            "say by a splits file which image is in which split"
        )
    parts = 1 if split == "train" else config.micro_batches  # what does not learn may come in batches of any size
    batch_size = -(-config.batch_size // parts)
    batches = CaptionBatches(rows, embeddings, writer.tokenizer, batch_size, max_tokens, config.seed)
    if batches.missing:
        say(f"{split}: {len(batches.missing)} images have no embedding and are left out, such as {batches.missing[0]}")
    if batches.cut:
        say(f"{split}: {len(batches.cut)} captions are cut at {max_tokens} tokens, such as {batches.cut[0][:60]!r}")
    return batches


SAMPLES = 4  # validation pictures that are captioned at every validation


class Logbook:
    """Of the main process; in the others every method does nothing."""

    def __init__(
        self, run: Run, accelerator: Accelerator, bar: tqdm, watch: Callable[[pd.DataFrame], None] | None
    ) -> None:
        self.run, self.accelerator, self.bar, self.watch = run, accelerator, bar, watch

    def write(self, row: dict[str, Any]) -> None:
        """A row of the history: to the file, the bar, the tracker and whoever watches."""
        if not self.accelerator.is_main_process:
            return
        self.run.append(row)
        self.bar.set_postfix(
            loss=f"{row['loss']:.3f}",
            captions_per_s=f"{row['captions_per_second']:.0f}",
            memory=f"{used_memory(self.accelerator.device):.1f}GB",
        )
        self.accelerator.log({name: value for name, value in row.items() if value is not None}, row["step"])
        if self.watch:
            self.watch(self.run.history())

    def write_samples(self, step: int, writer: CaptionWriter, held_out: CaptionBatches) -> None:
        """What the captioner makes of the same few validation pictures now, and the figure so far."""
        if not self.accelerator.is_main_process:
            return
        writer.captioner.eval()
        captions = writer.write(held_out.embeddings[:SAMPLES])
        writer.captioner.train()
        self.run.append_samples(step, dict(zip(held_out.image_names, captions, strict=False)))
        save_figure(plot_loss_and_lr(self.run.history()), self.run.figure)


class Meter:
    """Sums the loss on the device, so that no step waits for the GPU. `loss` and `steps` go on from a checkpoint."""

    def __init__(self, accelerator: Accelerator, loss: float = 0.0, steps: int = 0):
        self.accelerator = accelerator
        self.loss, self.steps = torch.tensor(loss, device=accelerator.device), steps
        self.captions, self.since = 0, time.monotonic()

    def add(self, loss: torch.Tensor, captions: int) -> None:
        self.loss += loss.detach()
        self.steps += 1
        self.captions += captions

    def read(self) -> dict[str, Any]:
        """Mean loss over all processes and captions a second, then start anew."""
        loss = self.accelerator.reduce(self.loss, "mean").item() / self.steps
        speed = self.captions / (time.monotonic() - self.since)
        self.__init__(self.accelerator)
        return {"loss": loss, "captions_per_second": round(speed, 1)}

    def state(self) -> dict[str, Any]:
        """What to go on from, the same in all processes."""
        return {"loss": self.accelerator.reduce(self.loss, "mean").item(), "steps": self.steps}


class Stop:
    """Why training should stop now, in words, or None."""

    def __init__(self, max_steps: int | None, max_hours: float | None):
        """Raises UserError on a session of no step or no time."""
        if max_steps is not None and max_steps < 1:
            raise UserError(f"max_steps is {max_steps}, but must be at least 1")
        if max_hours is not None and not max_hours > 0:
            raise UserError(f"max_hours is {max_hours}, but must be above 0")
        self.started = time.monotonic()
        self.steps = 0
        self.reserve = 0.0  # seconds to keep free at the end of the hours, for a last checkpoint
        self.max_steps, self.max_hours = max_steps, max_hours
        self.signal_name: str | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def reason(self) -> str | None:
        if self.signal_name:
            return f"{self.signal_name} was received"
        if self.max_steps is not None and self.steps >= self.max_steps:
            return f"the {self.max_steps} steps of this session are done"
        if self.max_hours is not None and self.seconds >= 3600 * self.max_hours - self.reserve:
            return f"the {self.max_hours} hours of this session are over, but for the time to save"
        return None


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Let Ctrl-C (SIGINT) and SIGTERM set `stop` instead of ending the process, so that the step ends and is saved."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def note(number: int, _frame: object) -> None:
        stop.signal_name = signal.Signals(number).name

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
