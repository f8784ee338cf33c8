"""Parts of published captioners: ClipCap's Transformer, and the way the original begins a caption.

ClipCap is github.com/rmokady/CLIP_prefix_caption (Mokady et al. 2021); its MLP is `MlpMapper`. The original is
github.com/jmisilo/clip-gpt-captioning; its mapping module is `OriginalMapper`.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2LMHeadModel, LogitsProcessor

from ..errors import UserError

if TYPE_CHECKING:
    from .mapping import MapperConfig


class ClipCapLayer(nn.Module):
    """A layer of ClipCap's Transformer: norms first, ReLU, and queries, keys and values without a bias."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries = nn.Linear(width, width, bias=False)
        self.keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(sequence)  # [B, S, E]
        queries, keys, values = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, heads, S, E/heads]
            for part in (self.queries(normed), *self.keys_values(normed).chunk(2, dim=2))
        )
        attended = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)  # [B, S, E]
        sequence = sequence + self.dropout(self.project(attended))
        return sequence + self.dropout(self.fc2(self.dropout(F.relu(self.fc1(self.norm2(sequence))))))


class ClipCapMapper(nn.Module):
    """ClipCap's Transformer: the embedding as C tokens beside P learned ones, whose outputs are the prefix.

    C is the config's `clip_length`, if it has one above 0, else P. There is no output layer.
    """

    def __init__(self, config: "MapperConfig", embedding_width: int, width: int):
        super().__init__()
        heads = config.mapper_heads
        if width % heads:
            raise UserError(f"mapper_heads is {heads}, but must divide the width of the clipcap mapper, {width}")
        self.clip_length = getattr(config, "clip_length", 0) or config.prefix_length
        self.linear = nn.Linear(embedding_width, self.clip_length * width)
        self.prefix_const = nn.Parameter(torch.randn(config.prefix_length, width))
        self.layers = nn.ModuleList(ClipCapLayer(width, heads, config.dropout) for _ in range(config.mapper_layers))

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        if embedding.ndim != 2:
            raise UserError(
                f"the clipcap mapper takes one vector per picture, [B, D], not {list(embedding.shape)}: choose queries "
                "or encoder for patches"
            )
        image = self.linear(embedding).unflatten(1, (self.clip_length, -1))  # [B, C, E]
        sequence = torch.cat([image, self.prefix_const.expand(len(embedding), -1, -1)], dim=1)  # [B, C+P, E]
        for layer in self.layers:
            sequence = layer(sequence)
        return sequence[:, self.clip_length :]  # [B, P, E]

    @torch.no_grad()
    def begin_at(self, vector: torch.Tensor) -> None:
        """Let a training begin with a prefix whose vectors are all near this one, [E]."""
        self.prefix_const.mul_(0.1 * vector.std()).add_(vector)
        for layer in self.layers:
            for last in (layer.project, layer.fc2):
                last.weight.mul_(0.1 * vector.std())
                last.bias.zero_()


class OriginalStart(LogitsProcessor):
    """The way the original begins a caption, for one call of GPT-2's `generate`.

    Its code adds the position embeddings by hand before GPT-2 adds them, which is in the converted weights: they are
    doubled. When a caption is written, it adds them in place, so from the second token on what stands before the
    caption has them once more. `later` is that; this processor scores the first token without it.
    """

    def __init__(self, gpt2: GPT2LMHeadModel, start: torch.Tensor):
        """start: the beginning-of-text token and the prefix, [B, 1+P, E]."""
        self.first = gpt2(inputs_embeds=start, use_cache=False, logits_to_keep=1).logits[:, -1].float()  # [B, V]
        self.later = with_positions_again(gpt2, start)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores [R, V] of the token behind input_ids, int64 [R, t], with the right ones for the first."""
        return scores if input_ids.shape[1] else self.first_scores(scores)

    def first_scores(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores of the first token, in the shape [R, V] and dtype of these."""
        return self.first.repeat_interleave(len(scores) // len(self.first), dim=0).to(scores)


def with_positions_again(gpt2: GPT2LMHeadModel, start: torch.Tensor) -> torch.Tensor:
    """Return [B, L, E] with the original's position embeddings added, which are half of the doubled ones."""
    return start + gpt2.transformer.wpe.weight[: start.shape[1]].to(start.dtype) / 2
