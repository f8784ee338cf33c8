"""Loss and speed since the history's last row."""

import time
from typing import Any

import torch
from accelerate import Accelerator


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
