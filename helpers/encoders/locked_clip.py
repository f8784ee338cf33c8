"""A CLIP whose image tower is pretrained and frozen: locked-image tuning (LiT, Zhai et al. 2022).

Only the projection of the image tower and the text tower learn.

It has the parts of transformers' CLIPModel under the same names, so that it can be used in its place:

    pixel_values -vision_model-> pooled [B, D] -visual_projection-> [B, PROJECTION]
    input_ids [B, T] -text_model-> pooled [B, W] -text_projection-> [B, PROJECTION]
"""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

PROJECTION = 256  # width of the space in which pictures and captions are compared


class WordBagConfig(PreTrainedConfig):
    """The shape of the text tower. eos_token_id: the token that ends and pads a text, and has no meaning."""

    model_type = "word_bag"

    def __init__(
        self, vocab_size: int = 6000, hidden_size: int = 256, max_position_embeddings: int = 40,
        eos_token_id: int = 0, **kwargs: Any,
    ):  # fmt: skip
        super().__init__(eos_token_id=eos_token_id, **kwargs)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.max_position_embeddings = max_position_embeddings


class LockedClipConfig(PreTrainedConfig):
    """The configs of the two towers. hidden: width of the layer between pooled output and projection."""

    model_type = "locked_clip"
    sub_configs = {"vision_config": AutoConfig, "text_config": WordBagConfig}  # noqa: RUF012 (transformers' own form)

    def __init__(
        self,
        vision_config: PreTrainedConfig | dict[str, Any] | None = None,
        text_config: WordBagConfig | dict[str, Any] | None = None,
        hidden: int = 1024,
        dropout: float = 0.3,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not isinstance(vision_config, PreTrainedConfig):
            vision_config = AutoConfig.for_model(**vision_config or {"model_type": "efficientnet_lite"})
        if not isinstance(text_config, WordBagConfig):
            text_config = WordBagConfig(**text_config or {})
        self.vision_config, self.text_config = vision_config, text_config
        self.hidden, self.dropout, self.projection_dim = hidden, dropout, PROJECTION


class WordBag(nn.Module):
    """The text tower: the mean of the tokens' vectors, weighted by a learned weight of each token."""

    def __init__(self, config: WordBagConfig):
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.weights = nn.Embedding(config.vocab_size, 1)
        self.ending = config.eos_token_id
        nn.init.normal_(self.tokens.weight, std=0.1)
        nn.init.zeros_(self.weights.weight)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        """Pool token ids [B, T] into [B, W]. attention_mask: [B, T], 0 for tokens to leave out beside the ending."""
        counted = input_ids != self.ending
        if attention_mask is not None:
            counted = counted & attention_mask.bool()
        vectors = self.tokens(input_ids)  # [B, T, W]
        weights = self.weights(input_ids).exp() * counted.unsqueeze(2)  # [B, T, 1]
        pooled = (vectors * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1e-6)
        return BaseModelOutputWithPooling(last_hidden_state=vectors, pooler_output=pooled)


class PooledProjection(nn.Module):
    """The image tower's pooled output, standardised, through one hidden layer."""

    def __init__(self, config: LockedClipConfig):
        super().__init__()
        width = config.vision_config.hidden_size
        self.register_buffer("mean", torch.zeros(width))  # of the training pictures
        self.register_buffer("std", torch.ones(width))
        self.layers = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(width, config.hidden), nn.GELU(), nn.Dropout(config.dropout),
            nn.Linear(config.hidden, PROJECTION),
        )  # fmt: skip

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.layers((pooled - self.mean) / self.std)


class LockedClip(PreTrainedModel):
    """A frozen image tower and a text tower in one space."""

    config_class = LockedClipConfig

    def __init__(self, config: LockedClipConfig, vision: PreTrainedModel | None = None):
        """Build it. vision: a pretrained image tower; a random one if not given."""
        super().__init__(config)
        vision = AutoModel.from_config(config.vision_config) if vision is None else vision
        self.vision_model = vision.requires_grad_(False)
        self.visual_projection = PooledProjection(config)
        self.text_model = WordBag(config.text_config)
        self.text_projection = nn.Linear(config.text_config.hidden_size, PROJECTION)
        self.logit_scale = nn.Parameter(torch.tensor(2.6593))  # ln(1 / 0.07), as CLIP starts
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave all modules as they initialised themselves."""


AutoConfig.register(WordBagConfig.model_type, WordBagConfig, exist_ok=True)
AutoConfig.register(LockedClipConfig.model_type, LockedClipConfig, exist_ok=True)
