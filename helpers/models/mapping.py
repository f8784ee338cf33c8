"""The mapping modules: an embedding of CLIP's width in, a prefix of P vectors of GPT-2's width out.

All share one interface, `forward(embedding: [B, D]) -> prefix: [B, P, E]`, and map each image alone: a row of a batch
comes out as it would by itself. `EncoderMapper` and `QueryMapper` also take patches [B, S, D], whose token 0 is the
pooled one; to them an embedding [B, D] is a sequence of one. The last layer of each is a linear `output`, but for
ClipCap's Transformer.

ClipCap is github.com/rmokady/CLIP_prefix_caption (Mokady et al. 2021), the original
github.com/jmisilo/clip-gpt-captioning.
"""

from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import UserError


class MapperConfig(Protocol):
    """The fields of a config that describe a mapping module; `Config` and `CaptionerConfig` have them."""

    mapper: str  # a name in MAPPERS
    prefix_length: int  # P
    mapper_layers: int  # Transformer encoder layers
    mapper_heads: int  # attention heads in each layer
    dropout: float


class MlpMapper(nn.Module):
    """One hidden layer, then all P vectors at once (after ClipCap's MLP, section 3.2 of Mokady et al. 2021)."""

    def __init__(self, config: MapperConfig, embedding_width: int, width: int):
        super().__init__()
        self.prefix_length = config.prefix_length
        hidden = config.prefix_length * width // 2
        self.hidden = nn.Sequential(nn.Linear(embedding_width, hidden), nn.Tanh(), nn.Dropout(config.dropout))
        self.output = nn.Linear(hidden, config.prefix_length * width)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        if embedding.ndim != 2:
            raise UserError(
                f"the mlp mapper takes one vector per picture, [B, D], not {list(embedding.shape)}: choose queries or "
                "encoder for patches"
            )
        prefix = self.output(self.hidden(embedding))  # [B, P*E]
        return prefix.unflatten(1, (self.prefix_length, -1))  # [B, P, E]


class EncoderMapper(nn.Module):
    """Transformer encoder layers at CLIP's width, then a linear layer that expands to P vectors: the original's order.

    The original fed its encoder `[B, D]`, which PyTorch reads as one sequence of B images that attend to each other.
    Here each image is a sequence of its own. A pooled embedding is a sequence of one; attention over one token is a
    plain linear map, so the encoder is in effect a deep residual MLP. For patches, token 0 is expanded after it has
    gathered from the others.
    """

    def __init__(self, config: MapperConfig, embedding_width: int, width: int):
        super().__init__()
        self.prefix_length = config.prefix_length
        self.encoder = self.build_encoder(config, embedding_width)
        self.output = nn.Linear(embedding_width, config.prefix_length * width)

    def build_encoder(self, config: MapperConfig, width: int) -> nn.TransformerEncoder:
        """Build the encoder layers of that width."""
        return _encoder(config, width)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        encoded = self.encoder(_sequence(embedding))[:, 0]  # [B, S, D] -> [B, D]
        return self.output(encoded).unflatten(1, (self.prefix_length, -1))  # [B, P, E]


class OriginalMapper(EncoderMapper):
    """The original's layers as they were published: the norm comes last in each, ReLU, no norm behind them."""

    def build_encoder(self, config: MapperConfig, width: int) -> nn.TransformerEncoder:
        """Build the encoder layers of that width."""
        _check_heads(config, width)
        layer = nn.TransformerEncoderLayer(width, config.mapper_heads, 4 * width, config.dropout, batch_first=True)
        return nn.TransformerEncoder(layer, config.mapper_layers, enable_nested_tensor=False)


class QueryMapper(nn.Module):
    """P learned queries beside the projected embedding in one encoder at GPT-2's width (after ClipCap's Transformer).

    ClipCap's own expands the embedding to several vectors. It has 8 layers with ReLU, feed-forwards of twice the width
    and no bias in queries, keys and values, and no linear layer behind them.
    Each patch is projected, and the queries attend to all of them. CLIP's own position embeddings have already told
    the patches where they are.
    """

    def __init__(self, config: MapperConfig, embedding_width: int, width: int):
        super().__init__()
        self.project = nn.Linear(embedding_width, width)
        self.queries = nn.Parameter(torch.randn(config.prefix_length, width))
        self.encoder = _encoder(config, width)
        self.output = nn.Linear(width, width)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        image = self.project(_sequence(embedding))  # [B, S, E]
        queries = self.queries.expand(len(embedding), -1, -1)  # [B, P, E]
        encoded = self.encoder(torch.cat([image, queries], dim=1))  # [B, S+P, E]
        return self.output(encoded[:, image.shape[1] :])  # [B, P, E]


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

    def __init__(self, config: MapperConfig, embedding_width: int, width: int):
        super().__init__()
        _check_heads(config, width)
        self.clip_length = getattr(config, "clip_length", 0) or config.prefix_length
        self.linear = nn.Linear(embedding_width, self.clip_length * width)
        self.prefix_const = nn.Parameter(torch.randn(config.prefix_length, width))
        self.layers = nn.ModuleList(
            ClipCapLayer(width, config.mapper_heads, config.dropout) for _ in range(config.mapper_layers)
        )

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


MAPPERS: dict[str, type[nn.Module]] = {
    "mlp": MlpMapper, "encoder": EncoderMapper, "queries": QueryMapper, "clipcap": ClipCapMapper,
    "original": OriginalMapper,
}  # fmt: skip


def build_mapper(config: MapperConfig, embedding_width: int, width: int) -> nn.Module:
    """Build the config's mapping module, from embeddings of width D to P vectors of GPT-2's width E.

    Raises UserError on an unknown mapper, or if the heads do not divide the width of its encoder.
    """
    if config.mapper not in MAPPERS:
        raise UserError(f"mapper is {config.mapper!r}, but must be one of {', '.join(MAPPERS)}")
    return MAPPERS[config.mapper](config, embedding_width, width)


@torch.no_grad()
def begin_neutral(mapper: nn.Module, neutral: torch.Tensor) -> None:
    """Let a training begin with a prefix whose vectors are all near `neutral`, [E]."""
    if isinstance(mapper, ClipCapMapper):  # it has no output layer
        mapper.begin_at(neutral)
        return
    mapper.output.weight.mul_(0.1)
    mapper.output.bias.copy_(neutral.repeat(len(mapper.output.bias) // len(neutral)))


def _sequence(embedding: torch.Tensor) -> torch.Tensor:
    """Return [B, S, D] as it is, and [B, D] as a sequence of one, [B, 1, D]."""
    return embedding if embedding.ndim == 3 else embedding.unsqueeze(1)


def _encoder(config: MapperConfig, width: int) -> nn.TransformerEncoder:
    _check_heads(config, width)
    # Layer norm comes first in each layer (Xiong et al. 2020), so six layers train without a long warm-up.
    layer = nn.TransformerEncoderLayer(
        width, config.mapper_heads, 4 * width, config.dropout, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, config.mapper_layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)


def _check_heads(config: MapperConfig, width: int) -> None:
    if width % config.mapper_heads:
        raise UserError(
            f"mapper_heads is {config.mapper_heads}, but must divide the width of the {config.mapper} mapper, {width}"
        )
