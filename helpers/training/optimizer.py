"""One optimizer step: the whole batch's gradient, over however many processes and micro-batches it is computed."""

from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from ..config import Config
from ..data.batches import Batch
from ..models.captioner import Captioner
from .packing import pack


class Learner:
    """Likelihood and optimizer, as Accelerate prepared them. A step depends on its number and its batch alone."""

    def __init__(
        self, accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, config: Config, total: int
    ):
        """total: steps of the whole run, which the learning rate is a function of."""
        self.accelerator, self.model, self.optimizer = accelerator, model, optimizer
        self.config, self.total = config, total
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def learn(self, batch: Batch, step: int) -> torch.Tensor:
        """Take step number `step`, counted from 1; this process's share of the batch's loss, a detached scalar.

        The mean over the processes is the batch's mean loss over its caption tokens. Each process computes its rows in
        `micro_batches` parts, one after the other, and their gradients add up to the batch's own.
        """
        config, processes = self.config, self.accelerator.num_processes
        torch.manual_seed(_dropout_seed(config.seed, step, self.accelerator.process_index))
        for group in self.optimizer.param_groups:
            group["lr"] = lr_at(step - 1, self.total, group["peak"], config.warmup)
        losses = []
        for number in range(config.micro_batches):
            index = self.accelerator.process_index + number * processes
            part, weight = batch.part(index, processes * config.micro_batches)
            packed = pack(part, config.prefix_length).to(self.accelerator.device)
            last = number == config.micro_batches - 1  # only then do the processes exchange their gradients
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                losses.append(self.model(packed) * (weight / config.micro_batches))
                self.accelerator.backward(losses[-1])
        self.accelerator.clip_grad_norm_(self.trained, config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return torch.stack([loss.detach() for loss in losses]).sum()


def _dropout_seed(seed: int, step: int, process: int) -> int:
    return (seed * 1_000_003 + step) * 1_009 + process


def lr_at(step: int, total_steps: int, peak: float, warmup: float = 1 / 3) -> float:
    """A triangle: linear from 0 up to `peak` over the first `warmup` share of the steps, then linear down to 0.

    `step` counts from 0 and the value is absolute, never a factor on another learning rate. The first step already
    trains at `peak / warm-up steps`, and only `total_steps` itself, after the last step, is 0. A third of the way up
    is the original's shape (`LRWarmup` in its utils/lr_warmup.py).
    """
    warmup_steps = max(1, round(total_steps * warmup))
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps + 1))


def parameter_groups(captioner: Captioner, config: Config) -> list[dict[str, Any]]:
    """AdamW's groups: mapping module and GPT-2 each with its peak learning rate, matrices alone with weight decay."""
    groups = []
    for module, rate, peak in ((captioner.mapper, "lr", config.mapper_lr), (captioner.gpt2, "gpt2_lr", config.gpt2_lr)):
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for decay, chosen in (
            (config.weight_decay, [parameter for parameter in trained if parameter.ndim >= 2]),
            (0.0, [parameter for parameter in trained if parameter.ndim < 2]),
        ):
            # An empty group (a wholly frozen GPT-2) stays, for the history records both learning rates.
            groups.append({"params": chosen, "lr": 0.0, "weight_decay": decay, "peak": peak, "rate": rate})
    return groups
