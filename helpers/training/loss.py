"""Teacher forcing on packed captions: the one loss of the training, and the likelihood of references.

The logits of all tokens over GPT-2's vocabulary would be the largest tensor by far (64 captions of 13 tokens, 50,257
logits each: 170 MB, and as much again for their gradient). They are computed where there is a target only, 1024 tokens
at a time, and turned into their gradient in place, in float32 for 128 of them at a time. PyTorch 2.13 brings
`F.linear_cross_entropy` for that; Kaggle's image does not have it yet.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..data.batches import Batch, CaptionBatches
from ..models.captioner import Captioner, attention_on
from .packing import Packed, pack

CHUNK = 1024  # tokens whose logits' gradient is there at a time
ROWS = 128  # tokens of them whose logits are there in float32
SLICE = 4096  # words of the vocabulary whose weights' gradient is computed at a time


class Likelihood(nn.Module):
    """The captioner, asked for the mean loss of packed captions in nats a token; what the trainer trains."""

    def __init__(self, captioner: Captioner):
        super().__init__()
        self.captioner = captioner
        self.train(captioner.training)

    def forward(self, packed: Packed) -> torch.Tensor:
        """The mean loss over the N caption tokens, a float32 scalar."""
        if not torch.is_grad_enabled():
            return self.nats(packed).mean()
        hidden = self.hidden(packed)
        return _SummedNats.apply(hidden, self.captioner.gpt2.lm_head.weight, packed.targets) / len(packed.targets)

    @torch.no_grad()
    def nats(self, packed: Packed) -> torch.Tensor:
        """The loss of each caption token, float32 [N]."""
        hidden, weight = self.hidden(packed), self.captioner.gpt2.lm_head.weight
        parts = zip(hidden.split(ROWS), packed.targets.split(ROWS), strict=True)
        return torch.cat(
            [F.cross_entropy(F.linear(part, weight).float(), wanted, reduction="none") for part, wanted in parts]
        )

    def pack(self, batch: Batch) -> Packed:
        """A padded batch, packed for this captioner and on its device."""
        return pack(batch, self.captioner.config.prefix_length).to(self.captioner.device)

    def hidden(self, packed: Packed) -> torch.Tensor:
        """GPT-2's last hidden states where a token is predicted, [N, E]."""
        captioner = self.captioner
        prefix = captioner.prefix(packed.embeddings)  # [B, P, E]
        inputs = captioner.gpt2.transformer.wte(packed.tokens)  # [R, L, E]
        flat = inputs.flatten(0, 1).index_copy(0, packed.prefixes, prefix.flatten(0, 1).to(inputs.dtype))  # [R*L, E]
        with attention_on(flat.device):
            output = captioner.gpt2.transformer(
                inputs_embeds=flat.view_as(inputs), position_ids=packed.positions, attention_mask=packed.mask,
                use_cache=False,
            )  # fmt: skip
        return output.last_hidden_state.flatten(0, 1)[packed.sources]


@torch.no_grad()
def validation_loss(likelihood: Likelihood, batches: CaptionBatches, first: int | None = None) -> float:
    """Mean loss over every caption token of `batches`, in nats a token. Leaves the captioner as it found it.

    first: look only at so many batches from the beginning on.
    """
    was_training = likelihood.training
    likelihood.eval()
    loss, targets = 0.0, 0
    for rows in batches.in_order()[:first]:
        packed = likelihood.pack(batches.rows(rows))
        loss += likelihood(packed).item() * len(packed.targets)
        targets += len(packed.targets)
    likelihood.train(was_training)
    return loss / targets


class _SummedNats(torch.autograd.Function):
    """The summed cross-entropy of `hidden @ weight.T`; a chunk's gradient is computed while its logits are there.

    Logits are in float32 for a few rows only, which a CPU's cache holds, and what stays of them for the products that
    follow is their gradient. The weights' gradient is summed slice by slice, without a second matrix of its size.
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
    """Of the summed loss: the probability of each word, less 1 at the target, [n, V]; and the loss itself, in nats."""
    gradient = hidden @ weight.T  # at first the logits
    buffer = hidden.new_empty(ROWS, len(weight), dtype=torch.float32)  # one for all rows: new memory costs time
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
    """In which to multiply: autocast's where it is on, else the tensor's own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype
