"""One session of a training: its accelerator, its batches, when it stops, and the records that it keeps."""

import math
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

from ..captions.read import read_text
from ..config import Config
from ..data.batches import CaptionBatches, caption_tokens
from ..data.embedding_cache import EmbeddingCache
from ..errors import UserError
from ..models.writer import CaptionWriter
from ..runtime.device import Choice, used_memory
from ..runtime.texts import shown
from .checkpoint import checkpoints
from .optimizer import Learner
from .run import Run

SKIPPED = 30  # steps in a row that the gradient scaler may skip; it halves its factor of 65,536 at each
SAMPLES = 4  # validation pictures that are captioned at every validation


def make_accelerator(choice: Choice, tracker: str | None, folder: str | Path) -> Accelerator:
    """Set up Accelerate on that device in that precision.

    tracker: the name of one of Accelerate's trackers; if it writes files, then to `folder`. Raises UserError if
    Accelerate does not know it or it is not installed.
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
    captions: pd.DataFrame, split: str, config: Config, *, cache: EmbeddingCache, writer: CaptionWriter,
    say: Callable[[str], None],
) -> CaptionBatches:  # fmt: skip
    """Return the batches of one split; `say` gets a line about images and captions that are left out or cut.

    Raises UserError if the split has no captions.
    """
    max_tokens = _max_tokens(config, writer)
    rows = captions[captions.split == split]
    if rows.empty:
        raise UserError(
            f"no caption is in split {split!r}, but training needs some in train and in val: give more pictures, or "
            "say by a splits file which image is in which split"
        )
    parts = 1 if split == "train" else config.micro_batches  # validation may use batches of any size
    size = -(-config.batch_size // parts)
    batches = CaptionBatches(rows, cache, writer.tokenizer, batch_size=size, max_tokens=max_tokens, seed=config.seed)
    if batches.missing:
        first = shown(batches.missing[0])
        say(f"{split}: {len(batches.missing)} images have no embedding and are left out, such as {first}")
    if batches.cut:
        say(f"{split}: {len(batches.cut)} captions are cut at {max_tokens} tokens, such as {batches.cut[0][:60]!r}")
    return batches


def add_text(batches: CaptionBatches, config: Config, writer: CaptionWriter, *, captions: pd.DataFrame) -> None:
    """Add the config's captions without a picture; the mean embedding of the training images stands for it.

    captions: with those of the held-out pictures, which are not learned from a text either.
    """
    text = read_text(config.text, captions=captions) if config.text else list(batches.captions.caption)
    tokens, _ = caption_tokens(writer.tokenizer, text, _max_tokens(config, writer))
    batches.add_text(tokens, config.text_share, writer.captioner.mean_embedding)


def _max_tokens(config: Config, writer: CaptionWriter) -> int:
    """Return the number of tokens at which captions are cut: the config's, or what fits into GPT-2's context."""
    return min(config.max_caption_tokens, writer.captioner.longest_caption)


class Stop:
    """The end of a session before the end of its run: after so many steps or hours, or by a signal."""

    def __init__(self, max_steps: int | None, max_hours: float | None):
        """Start the clock. Raises UserError on a session without a step or without time."""
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
        """Return why to stop now, in words, or None."""
        if self.signal_name:
            return f"{self.signal_name} was received"
        if self.max_steps is not None and self.steps >= self.max_steps:
            return f"the {self.max_steps} steps of this session are done"
        if self.max_hours is not None and self.seconds >= 3600 * self.max_hours - self.reserve:
            return f"the {self.max_hours} hours of this session are over, except for the time to save"
        return None


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Let SIGINT (Ctrl-C), SIGTERM and SIGHUP (a closed terminal) set `stop`: the step ends and is saved first."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def note(number: int, _frame: object) -> None:
        stop.signal_name = signal.Signals(number).name

    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none; under nohup it stays ignored
    numbers = {signal.SIGINT, signal.SIGTERM, *([] if signal.getsignal(hangup) is signal.SIG_IGN else [hangup])}
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Finite:
    """Ends a training at its first step whose loss or gradient is not finite, before anything of it is saved.

    A step is looked at when the next one has been started, so that no step waits for a GPU. With a gradient scaler
    (fp16) a gradient that is not finite is no mistake: the scaler skips the step and halves its factor.
    """

    def __init__(self, run: Run, learner: Learner):
        self.run, self.learner = run, learner
        self.last: tuple[torch.Tensor, torch.Tensor] | None = None  # the loss and the gradient's norm
        self.when = ""
        self.skipped = 0  # steps in a row

    def add(self, done: int, loss: torch.Tensor) -> None:
        """Look at the step before, and keep this one: the `done`-th, with its loss and the learner's gradient."""
        self.check()
        rates = {group["rate"]: f"{group['rate']} {group['lr']:.3g}" for group in self.learner.optimizer.param_groups}
        self.last, self.when = (loss, self.learner.norm), f"at step {done}, with {' and '.join(rates.values())}"

    def check(self) -> None:
        """Raise UserError if the loss or the gradient of the last step is not finite."""
        if self.last is None:
            return
        (loss, norm), self.last = (value.item() for value in self.last), None
        may_skip = self.learner.accelerator.scaler is not None and math.isfinite(loss)
        self.skipped = 0 if math.isfinite(norm) else self.skipped + 1
        self._refuse(
            {"loss": loss} if may_skip and self.skipped <= SKIPPED else {"loss": loss, "gradient's norm": norm}
        )

    def check_validation(self, val_loss: float | None) -> None:
        """Raise UserError if the validation after the last step is not finite."""
        self._refuse({"validation loss": 0.0 if val_loss is None else val_loss})

    def _refuse(self, values: dict[str, float]) -> None:
        if wrong := [f"the {name} is {value}" for name, value in values.items() if not math.isfinite(value)]:
            saved = checkpoints(self.run.checkpoints)
            stands = f"{saved[-1]} still stands" if saved else "there is no checkpoint yet"
            raise UserError(
                f"{' and '.join(wrong)} {self.when}: training ends here, and {stands}; the usual way out is a new run "
                "with lower learning rates (--mapper-lr, --gpt2-lr)"
            )


class Meter:
    """Loss and speed since the history's last row. The loss is summed on the device, so no step waits for a GPU."""

    def __init__(self, accelerator: Accelerator, loss: float = 0.0, steps: int = 0):
        """Go on from a checkpoint's summed `loss` over `steps`."""
        self.accelerator = accelerator
        self._restart(loss, steps)

    def _restart(self, loss: float, steps: int) -> None:
        self.loss, self.steps = torch.tensor(loss, device=self.accelerator.device), steps
        self.captions, self.since = 0, time.monotonic()

    def add(self, loss: torch.Tensor, captions: int) -> None:
        """Add one step's loss and its number of captions."""
        self.loss += loss.detach()
        self.steps += 1
        self.captions += captions

    def read(self) -> dict[str, Any]:
        """Return the mean loss over all processes and the captions per second, and restart."""
        loss = self.accelerator.reduce(self.loss, "mean").item() / self.steps
        speed = self.captions / (time.monotonic() - self.since)
        self._restart(0.0, 0)
        return {"loss": loss, "captions_per_second": round(speed, 1)}

    def state(self) -> dict[str, Any]:
        """Return what to go on from, the same in all processes."""
        return {"loss": self.accelerator.reduce(self.loss, "mean").item(), "steps": self.steps}


class Logbook:
    """The main process's records: history, sample captions, figure, progress bar, tracker. Others record nothing."""

    def __init__(
        self, run: Run, accelerator: Accelerator, bar: tqdm, *, watch: Callable[[pd.DataFrame], None] | None
    ) -> None:
        self.run, self.accelerator, self.bar, self.watch = run, accelerator, bar, watch

    def record(self, row: dict[str, Any]) -> None:
        """Add a row to the history, show it to bar, tracker and `watch`, and save the figure if it has a val_loss."""
        if not self.accelerator.is_main_process:
            return
        self.run.append(row)
        self.bar.set_postfix(
            loss=f"{row['loss']:.3f}",
            captions_per_s=f"{row['captions_per_second']:.0f}",
            memory=f"{used_memory(self.accelerator.device):.1f}GB",
        )
        self.accelerator.log({name: value for name, value in row.items() if value is not None}, row["step"])
        if row["val_loss"] is not None:
            self.run.save_figure()
        if self.watch:
            self.watch(self.run.history())

    def record_samples(self, step: int, writer: CaptionWriter, held_out: CaptionBatches) -> None:
        """Caption the same few validation pictures at every validation."""
        if not self.accelerator.is_main_process:
            return
        writer.captioner.eval()
        written = writer.write(held_out.embeddings[:SAMPLES])
        writer.captioner.train()
        self.run.append_samples(step, dict(zip(held_out.image_names, written, strict=False)))
