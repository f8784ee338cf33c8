"""The config of a captioner: its config.json, by which transformers knows a captioner's folder."""

from typing import Any

from transformers import AutoConfig, CLIPVisionConfig, PreTrainedConfig


class CaptionerConfig(PreTrainedConfig):
    """The two architectures and the mapping module between them; the other fields are those of `Config`."""

    model_type = "clipxgpt-captioner"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012 (transformers' own form)

    def __init__(
        self,
        vision_config: PreTrainedConfig | dict[str, Any] | None = None,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        mapper: str = "encoder",
        prefix_length: int = 4,
        mapper_layers: int = 6,
        mapper_heads: int = 8,
        dropout: float = 0.1,
        pooling: str = "pooled",
        embedding_noise: float = 0.0,
        beam_length_penalty: float = 1.0,  # transformers allows no `length_penalty` in a model's config
        familiarity: int = 0,  # the number of Gaussians (familiarity.py); captioners of before have none, or True for 1
        clip_length: int = 0,  # C of ClipCap's Transformer; 0 is prefix_length
        normalised: bool = False,  # whether embeddings are divided by their norm first, as ClipCap does for RN50x4
        stop_token_id: int | None = None,  # a token that ends a caption beside end-of-text: ClipCap's "."
        original_start: bool = False,  # whether captions begin as the original begins them (processors.py)
        learned_without_picture: bool | None = None,  # captions, by text_share in any training; None: not known
        tokenizer_sha256: str | None = None,  # of the vocabulary of its tokenizer; captioners of before have none
        **kwargs: Any,
    ):
        # First, because it resets the attention of sub-configs that exist already, and these belong to live models.
        super().__init__(**kwargs)
        if not isinstance(vision_config, PreTrainedConfig):
            vision_config = AutoConfig.for_model(**vision_config) if vision_config else CLIPVisionConfig()
        if not isinstance(text_config, PreTrainedConfig):
            text_config = AutoConfig.for_model(**{"model_type": "gpt2", **(text_config or {})})
        self.vision_config, self.text_config = vision_config, text_config
        self.mapper, self.prefix_length = mapper, prefix_length
        self.mapper_layers, self.mapper_heads = mapper_layers, mapper_heads
        self.dropout, self.embedding_noise = dropout, embedding_noise
        self.pooling, self.beam_length_penalty, self.familiarity = pooling, beam_length_penalty, familiarity
        self.clip_length, self.normalised = clip_length, normalised
        self.stop_token_id, self.original_start = stop_token_id, original_start
        self.learned_without_picture = learned_without_picture
        self.tokenizer_sha256 = tokenizer_sha256


AutoConfig.register(CaptionerConfig.model_type, CaptionerConfig, exist_ok=True)  # a captioner's folder has a known type
