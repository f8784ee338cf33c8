"""One optimizer step, its learning rate, and the parts of a training that may be replaced."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import nn

from ..config import Config
from ..data.batches import Batch
from ..models.captioner import Captioner
from .loss import CaptionLoss
from .packing import Packed, pack


class Schedule(Protocol):
    """A learning rate as a function of the step, like `lr_at`."""

    def __call__(self, step: int, total_steps: int, *, peak: float, warmup: float) -> float: ...


def lr_at(step: int, total_steps: int, *, peak: float, warmup: float = 1 / 3) -> float:
    """Return a triangle: linear from 0 up to `peak` over the first `warmup` share of the steps, then down to 0.

    `step` counts from 0 and the value is absolute, never a factor on another learning rate. The first step already
    trains at `peak / warm-up steps`, and the rate is 0 only at `total_steps`, after the last step. Warming up for a
    third of the steps is the original's shape, in both its versions (`LRWarmup` in its utils/lr_warmup.py).
    """
    warmup_steps = max(1, round(total_steps * warmup))
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps + 1))


@dataclass(frozen=True)
class Parts:
    """The parts of a training that an experiment may replace (experiments/original_bugs.py)."""

    captioner: type[Captioner] = Captioner
    loss: type[CaptionLoss] = CaptionLoss
    schedule: Schedule = lr_at
    pack: Callable[[Batch, int], Packed] = pack


def parameter_groups(captioner: Captioner, config: Config) -> list[dict[str, Any]]:
    """Return AdamW's groups: mapping module and GPT-2 each with its peak learning rate, weight decay on matrices."""
    groups = []
    for module, rate, peak in ((captioner.mapper, "lr", config.mapper_lr), (captioner.gpt2, "gpt2_lr", config.gpt2_lr)):
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for decay, chosen in (
            (config.weight_decay, [parameter for parameter in trained if parameter.ndim >= 2]),
            (0.0, [parameter for parameter in trained if parameter.ndim < 2]),
        ):
            # An empty group (a wholly frozen GPT-2) stays, because the history records both learning rates.
            groups.append({"params": chosen, "lr": 0.0, "weight_decay": decay, "peak": peak, "rate": rate})
    return groups


class Learner:
    """Loss and optimizer, as Accelerate prepared them. A step depends on its number and its batch alone."""

    def __init__(
        self, accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, *, config: Config,
        total: int, parts: Parts | None = None,
    ):  # fmt: skip
        """Take what `accelerator.prepare` returned. total: the steps of the whole run, for the learning rate."""
        self.accelerator, self.model, self.optimizer = accelerator, model, optimizer
        self.config, self.total, self.parts = config, total, parts or Parts()
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.norm: torch.Tensor | None = None  # of the last step's gradient before it was clipped, on the device

    def learn(self, batch: Batch, step: int) -> torch.Tensor:
        """Take step number `step`, counted from 0; return this process's share of the loss, a detached scalar in nats.

        The mean over the processes is the batch's mean loss per caption token. Each process computes its rows in
        `micro_batches` parts, one after the other, and their gradients add up to that of the batch.
        """
        config, processes = self.config, self.accelerator.num_processes
        torch.manual_seed(_dropout_seed(config.seed, step, self.accelerator.process_index))
        for group in self.optimizer.param_groups:
            group["lr"] = self.parts.schedule(step, self.total, peak=group["peak"], warmup=config.warmup)
        losses = []
        for number in range(config.micro_batches):
            index = self.accelerator.process_index + number * processes
            part, weight = batch.part(index, processes * config.micro_batches)
            packed = self.parts.pack(part, config.prefix_length).to(self.accelerator.device)
            last = number == config.micro_batches - 1  # only then do the processes exchange their gradients
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                losses.append(self.model(packed) * (weight / config.micro_batches))
                self.accelerator.backward(losses[-1])
        self.norm = self.accelerator.clip_grad_norm_(self.trained, config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return torch.stack([loss.detach() for loss in losses]).sum()


def _dropout_seed(seed: int, step: int, process: int) -> int:
    return (seed * 1_000_003 + step + 1) * 1_009 + process
