"""One optimizer step: the whole batch's gradient, over however many processes and micro-batches it is computed."""

from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import nn

from .batches import Batch
from .config import Config
from .packing import pack
from .schedule import lr_at


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
