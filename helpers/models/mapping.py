"""The mapping modules: an embedding of CLIP's width in, a prefix of P vectors of GPT-2's width out.

All three share one interface, `forward(embedding: [B, D]) -> prefix: [B, P, E]`, and map every image alone: a row of a
batch comes out as it would by itself. `EncoderMapper` and `QueryMapper` take patches too, [B, S, D], of which token 0
is the pooled one; an embedding [B, D] is to them a sequence of one. The last layer of each is a linear `output`.
"""

import torch
from torch import nn

from ..errors import UserError


class MlpMapper(nn.Module):
    """One hidden layer, then all P vectors at once (ClipCap's MLP, section 3.2 of Mokady et al. 2021)."""

    def __init__(self, embedding_width: int, prefix_length: int, width: int, dropout: float):
        super().__init__()
        self.prefix_length = prefix_length
        hidden = prefix_length * width // 2
        self.hidden = nn.Sequential(nn.Linear(embedding_width, hidden), nn.Tanh(), nn.Dropout(dropout))
        self.output = nn.Linear(hidden, prefix_length * width)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        if embedding.ndim != 2:
            raise UserError(
                f"the mlp mapper takes one vector a picture, [B, D], not {list(embedding.shape)}: choose queries or "
                "encoder for patches"
            )
        prefix = self.output(self.hidden(embedding))  # [B, P*E]
        return prefix.unflatten(1, (self.prefix_length, -1))  # [B, P, E]


class EncoderMapper(nn.Module):
    """The original's order: Transformer encoder layers at CLIP's width, then one linear layer expands to P vectors.

    The original fed its encoder `[B, D]`, which PyTorch reads as one sequence of B images that attend to each other.
    Here each image is a sequence of its own. Of a pooled embedding it has length one: attention over one token is a
    plain linear map, so the encoder is in effect a deep residual MLP, and that is what this design can do. Of patches
    it is what token 0 has gathered from them that is expanded.
    """

    def __init__(self, embedding_width: int, prefix_length: int, width: int, dropout: float, layers: int, heads: int):
        super().__init__()
        self.prefix_length = prefix_length
        self.encoder = _encoder(embedding_width, layers, heads, dropout)
        self.output = nn.Linear(embedding_width, prefix_length * width)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        encoded = self.encoder(_sequence(embedding))[:, 0]  # [B, S, D] -> [B, D]
        return self.output(encoded).unflatten(1, (self.prefix_length, -1))  # [B, P, E]


class QueryMapper(nn.Module):
    """P learned queries beside the projected embedding in one encoder at GPT-2's width (ClipCap's Transformer).

    Of patches each is projected, and the queries look at all of them; where a patch stood, CLIP's own position
    embeddings have told it.
    """

    def __init__(self, embedding_width: int, prefix_length: int, width: int, dropout: float, layers: int, heads: int):
        super().__init__()
        self.prefix_length = prefix_length
        self.project = nn.Linear(embedding_width, width)
        self.queries = nn.Parameter(torch.randn(prefix_length, width))
        self.encoder = _encoder(width, layers, heads, dropout)
        self.output = nn.Linear(width, width)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        image = self.project(_sequence(embedding))  # [B, S, E]
        queries = self.queries.expand(len(embedding), -1, -1)  # [B, P, E]
        encoded = self.encoder(torch.cat([image, queries], dim=1))  # [B, S+P, E]
        return self.output(encoded[:, image.shape[1] :])  # [B, P, E]


def build_mapper(
    kind: str, embedding_width: int, prefix_length: int, width: int, layers: int, heads: int, dropout: float
) -> nn.Module:
    """The mapping module named `kind` from embeddings of width D to P vectors of GPT-2's width E.

    Raises UserError on an unknown kind, or where the heads do not divide the width of the encoder.
    """
    if kind == "mlp":
        return MlpMapper(embedding_width, prefix_length, width, dropout)
    designs = {"encoder": (EncoderMapper, embedding_width), "queries": (QueryMapper, width)}
    if kind not in designs:
        raise UserError(f"mapper is {kind!r}, but must be one of mlp, {', '.join(designs)}")
    design, encoder_width = designs[kind]
    if encoder_width % heads:
        raise UserError(f"mapper_heads is {heads}, but must divide the width of the {kind} mapper, {encoder_width}")
    return design(embedding_width, prefix_length, width, dropout, layers, heads)


def _sequence(embedding: torch.Tensor) -> torch.Tensor:
    """[B, S, D] as it is, and [B, D] as a sequence of one, [B, 1, D]."""
    return embedding if embedding.ndim == 3 else embedding.unsqueeze(1)


def _encoder(width: int, layers: int, heads: int, dropout: float) -> nn.TransformerEncoder:
    # Layer norm comes first in each layer (Xiong et al. 2020): six layers then train without a long warm-up.
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
