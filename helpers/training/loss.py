"""The one loss of the training, the mean cross-entropy of caption tokens under teacher forcing, on packed captions.

The logits of all tokens over the vocabulary would be by far the largest tensor (64 captions of 13 tokens with
50,257 logits each: 170 MB, and as much again for the gradient). They are computed only at targets, CHUNK tokens at a
time, and replaced by their gradient in place, in float32 for ROWS tokens at a time.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..data.batches import Batch, CaptionBatches
from ..language.language_model import read_rows
from ..models.captioner import Captioner
from .packing import Packed, pack

CHUNK = 1024  # tokens whose logits' gradient is in memory at a time
ROWS = 128  # tokens whose logits are in memory in float32 at a time
SLICE = 4096  # vocabulary entries whose weights' gradient is computed at a time


class CaptionLoss(nn.Module):
    """The captioner as a function from packed captions to their mean loss, in nats per token; the trainer trains it."""

    def __init__(self, captioner: Captioner):
        super().__init__()
        self.captioner = captioner
        self.train(captioner.training)

    def forward(self, packed: Packed) -> torch.Tensor:
        """Return the mean loss over the N caption tokens, a float32 scalar in nats."""
        if not torch.is_grad_enabled():
            return self.nats(packed).mean()
        hidden = self.hidden(packed)
        return _SummedNats.apply(hidden, self.weight, packed.targets) / len(packed.targets)

    @torch.no_grad()
    def nats(self, packed: Packed) -> torch.Tensor:
        """Return the loss of each caption token in nats, float32 [N]."""
        hidden, weight = self.hidden(packed), self.weight
        parts = zip(hidden.split(ROWS), packed.targets.split(ROWS), strict=True)
        return torch.cat(
            [F.cross_entropy(F.linear(part, weight).float(), wanted, reduction="none") for part, wanted in parts]
        )

    @property
    def weight(self) -> torch.Tensor:
        """The output layer's weights, [V, E]."""
        return self.captioner.gpt2.get_output_embeddings().weight

    def pack(self, batch: Batch) -> Packed:
        """Pack a padded batch for this captioner, on its device."""
        return pack(batch, self.captioner.config.prefix_length).to(self.captioner.device)

    def hidden(self, packed: Packed) -> torch.Tensor:
        """Return the language model's last hidden states at the places that predict a token, [N, E]."""
        captioner = self.captioner
        prefix = captioner.prefix(packed.embeddings)  # [B, P, E]
        inputs = captioner.gpt2.get_input_embeddings()(packed.tokens)  # [R, L, E]
        flat = inputs.flatten(0, 1).index_copy(0, packed.prefixes, prefix.flatten(0, 1).to(inputs.dtype))  # [R*L, E]
        hidden = read_rows(captioner.gpt2, flat.view_as(inputs), positions=packed.positions, text_of=packed.caption_of)
        return hidden.flatten(0, 1)[packed.sources]


@torch.no_grad()
def validation_loss(loss: CaptionLoss, batches: CaptionBatches, first: int | None = None) -> float:
    """Return the mean loss over every caption token of `batches`, in nats per token; the captioner stays as it is.

    first: only so many batches, from the beginning on.
    """
    was_training = loss.training
    loss.eval()
    nats, targets = 0.0, 0
    for rows in batches.in_order()[:first]:
        packed = loss.pack(batches.rows(rows))
        nats += loss(packed).item() * len(packed.targets)
        targets += len(packed.targets)
    loss.train(was_training)
    return nats / targets


class _SummedNats(torch.autograd.Function):
    """The summed cross-entropy of `hidden @ weight.T`; a chunk's gradient is computed while its logits are in memory.

    Only a few rows of logits, which a CPU's cache holds, are in float32; the products that follow take their gradient.
    The weights' gradient is summed slice by slice, without a second matrix of its size.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        low = weight.to(_dtype(weight))  # [V, E]
        inputs, targets = hidden.to(low.dtype), targets.unsqueeze(1)
        hidden_grad = torch.empty_like(hidden) if of_hidden else None
        weight_grad = torch.zeros_like(weight) if of_weight else None
        total = torch.zeros((), device=hidden.device)
        for start in range(0, len(inputs), CHUNK):
            chunk = slice(start, start + CHUNK)
            gradient, nats = _gradient_of_logits(inputs[chunk], low, targets[chunk])  # [n, V]
            total += nats
            if of_hidden:
                hidden_grad[chunk] = gradient @ low
            if of_weight:
                for sums, words in zip(weight_grad.split(SLICE), gradient.split(SLICE, dim=1), strict=True):
                    sums += words.T @ inputs[chunk]
        ctx.save_for_backward(hidden_grad, weight_grad)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return *(grad if grad is None else grad.mul_(upstream) for grad in ctx.saved_tensors), None


def _gradient_of_logits(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed loss's gradient, each entry's probability less 1 at the target [n, V], and the loss in nats."""
    gradient = hidden @ weight.T  # at first the logits
    buffer = hidden.new_empty(ROWS, len(weight), dtype=torch.float32)  # reused, because new memory costs time
    nats = torch.zeros((), device=hidden.device)
    for out, wanted in zip(gradient.split(ROWS), targets.split(ROWS), strict=True):
        logits = buffer[: len(out)].copy_(out)  # [ROWS, V]
        logits -= logits.amax(dim=1, keepdim=True)
        right = logits.gather(1, wanted)
        sums = logits.exp_().sum(dim=1, keepdim=True)
        nats += (sums.log() - right).sum()
        out.copy_(logits.div_(sums))
    gradient[torch.arange(len(targets), device=targets.device), targets.squeeze(1)] -= 1
    return gradient, nats


def _dtype(tensor: torch.Tensor) -> torch.dtype:
    """Return the dtype to multiply in: autocast's if it is on, else the tensor's own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype
