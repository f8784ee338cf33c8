"""The captioner: CLIP's embedding becomes a prefix, and GPT-2 or another language model continues from there.

    pixel_values -CLIP-> embedding [B, D] -MappingModule-> prefix [B, P, E] -GPT-2-> logits [B, T, V]

It is a `PreTrainedModel` like any other in transformers: `from_pretrained`, `save_pretrained`, `generate`.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AutoModel
from transformers.generation import GenerationConfig, GenerationMixin, LogitsProcessorList
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput

from ..encoders.vision import build_tower, embedding_shape, image_features
from ..errors import UserError
from ..language.freezing import merged_state, rest_frozen
from ..language.language_model import language_model_class, longest_text
from ..runtime.device import attention_on
from .captioner_config import CaptionerConfig
from .decoding import LONGEST_BY_DEFAULT
from .familiarity import Familiarity
from .mapping import begin_neutral, build_mapper
from .processors import Guidance, OriginalStart, with_positions_again


@dataclass
class CaptionerOutput(ModelOutput):
    """loss: float32 scalar, mean over the caption tokens; logits: [B, T, V], `logits[:, t]` scores caption token t."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class Captioner(PreTrainedModel, GenerationMixin):
    """Frozen CLIP, mapping module and language model in one; `freezing.freeze` chooses which of its tensors train."""

    config_class = CaptionerConfig
    base_model_prefix = "captioner"
    main_input_name = "embeddings"
    _supports_sdpa = True

    def __init__(
        self, config: CaptionerConfig, clip: PreTrainedModel | None = None, gpt2: PreTrainedModel | None = None
    ):
        """Build a captioner. clip, gpt2: a pretrained vision tower and language model; random ones if not given."""
        super().__init__(config)
        embedding_width = embedding_shape(config.vision_config, config.pooling)[-1]
        clip = build_tower(config.vision_config, config.pooling) if clip is None else clip
        self.clip = clip.requires_grad_(False)
        gpt2 = language_model_class(config.text_config)(config.text_config) if gpt2 is None else gpt2
        self.mapper = build_mapper(config, embedding_width, gpt2.get_input_embeddings().embedding_dim)
        self.gpt2 = gpt2  # or another language model: the name is that in its files
        self.register_buffer("embedding_mean", torch.zeros(embedding_width))  # [D], of the training images
        self.register_buffer("embedding_std", torch.ones(embedding_width))  # [D]
        self.familiarity = Familiarity(embedding_width, config.familiarity) if config.familiarity else None
        self.end_with(config.text_config.eos_token_id)
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Leave the mapping module as PyTorch initialised it; the two models initialise themselves."""

    @torch.no_grad()
    def prepare_for(self, embeddings: torch.Tensor) -> None:
        """Standardise by the mean and spread of these training embeddings, and make the first prefix neutral.

        embeddings: [N, D], or patches [N, S, D], whose channels are standardised over all tokens alike. Neutral means
        P times the language model's own embedding of the token behind which it begins a text, which in GPT-2 is
        end-of-text. The mapping module then starts from a language model that works, and does not have to undo a random
        prefix first.
        """
        vectors = self._normalised(embeddings).flatten(0, -2)  # [N, D] or [N*S, D]
        self.embedding_mean.copy_(vectors.mean(dim=0))
        self.embedding_std.copy_(vectors.std(dim=0).clamp_min(1e-4))
        self.know(embeddings)
        begin_neutral(self.mapper, self.beginning)

    @property
    def beginning(self) -> torch.Tensor:
        """The input embedding of the token behind which a text begins, [E]."""
        token = torch.tensor(self.config.text_config.bos_token_id, device=self.device)
        return self.gpt2.get_input_embeddings()(token)

    def know(self, embeddings: torch.Tensor) -> bool:
        """Count these training embeddings as familiar, beside those of before; return False if they are too few."""
        return self.familiarity is None or self.familiarity.know(self.vectors(embeddings))

    def strangeness(self, embeddings: torch.Tensor) -> torch.Tensor | None:
        """Return how unlike the training images each image is, float32 [B], above 1 if so; None if it is not known."""
        return self.familiarity(self.vectors(embeddings)) if self.familiarity else None

    def vectors(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return one standardised vector per image, [N, D]; for patches, their mean."""
        return self.standardised(embeddings if embeddings.ndim == 2 else embeddings.mean(dim=1))

    def standardised(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return embeddings [..., D] in units of the training images' spread around their mean."""
        return (self._normalised(embeddings.to(self.embedding_mean)) - self.embedding_mean) / self.embedding_std

    def _normalised(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return embeddings [..., D] divided by their norm, if this captioner takes them so."""
        return F.normalize(embeddings, dim=-1) if self.config.normalised else embeddings

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save as any model does, but with LoRA's adapters merged into the weights, so that it loads without peft."""
        self.config.familiarity = len(self.familiarity or ())
        super().save_pretrained(save_directory, **{"state_dict": merged_state(self), **kwargs})

    def end_with(self, end_of_text: int) -> None:
        """Let captions end with the token that the tokenizer calls end-of-text, whatever other configs say."""
        self.config.text_config.eos_token_id = end_of_text
        self.generation_config = GenerationConfig(
            bos_token_id=end_of_text, pad_token_id=end_of_text,
            eos_token_id=self.endings if len(self.endings) > 1 else end_of_text,
            max_new_tokens=LONGEST_BY_DEFAULT,
        )  # fmt: skip
        self.gpt2.generation_config = self.generation_config  # its own may have a penalty for repetitions, for example

    @property
    def endings(self) -> list[int]:
        """The tokens that end a caption when it is written."""
        stop = self.config.stop_token_id
        return [self.config.text_config.eos_token_id, *([] if stop is None else [stop])]

    @property
    def embedding_shape(self) -> tuple[int, ...]:
        """The shape of one image's embedding: (D,), or (S, D) for patches."""
        return embedding_shape(self.config.vision_config, self.config.pooling)

    @property
    def mean_embedding(self) -> torch.Tensor:
        """The mean of the training images' vectors, [D] or [S, D], which stands for no image."""
        return self.embedding_mean.expand(self.embedding_shape)

    @property
    def longest_caption(self) -> int:
        """The number of caption tokens that fit behind the prefix into the language model's context."""
        return longest_text(self.config.text_config) - self.config.prefix_length - bool(self.config.original_start)

    def train(self, mode: bool = True) -> "Captioner":
        """Set the mode as any module does, but leave frozen modules in `eval()`: their dropout would only be noise."""
        super().train(mode)
        rest_frozen(self)
        return self

    def prefix(self, embeddings: torch.Tensor | None = None, pixel_values: torch.Tensor | None = None) -> torch.Tensor:
        """Return the prefix [B, P, E] for embeddings [B, D] or [B, S, D], or for pixel values [B, 3, H, W].

        Raises UserError on embeddings of the other pooling or of another CLIP's shape.
        """
        if (embeddings is None) == (pixel_values is None):
            raise ValueError("give either embeddings [B, D] or pixel_values [B, 3, H, W]")
        if embeddings is None:
            with torch.no_grad():
                embeddings = image_features(self.clip, pixel_values, self.config.pooling)
        if embeddings.shape[1:] != self.embedding_shape:
            raise UserError(
                f"embeddings are {list(embeddings.shape)}, but this captioner's pooling is {self.config.pooling!r} and "
                f"each must be {list(self.embedding_shape)}: make them with its own CLIP and pooling"
            )
        standardised = self.standardised(embeddings)
        if self.training and self.config.embedding_noise:
            standardised = standardised + self.config.embedding_noise * torch.randn_like(standardised)
        return self.mapper(standardised)

    def generation_prefix(
        self, embeddings: torch.Tensor | None = None, pixel_values: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the vectors that stand before a caption when it is written: the prefix, as in training.

        With the original's start, the beginning-of-text token stands before it.
        """
        prefix = self.prefix(embeddings, pixel_values)
        if not self.config.original_start:
            return prefix
        return torch.cat([self.beginning.to(prefix.dtype).expand(len(prefix), 1, -1), prefix], dim=1)  # [B, 1+P, E]

    def forward(
        self,
        input_ids: torch.Tensor,
        embeddings: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> CaptionerOutput:
        """Score each caption token given the image and the tokens before it (teacher forcing).

        input_ids: int64 [B, T], each caption with one end-of-text at its end, padded on the right with any id.
        labels: int64 [B, T], the same ids, with -100 at the padding, which the loss ignores. Attention is causal, so
        no token sees the padding behind it and no mask is needed. The model counts positions over prefix and caption.
        """
        prefix = self.prefix(embeddings, pixel_values)  # [B, P, E]
        tokens = self.gpt2.get_input_embeddings()(input_ids)  # [B, T, E]
        inputs = torch.cat([prefix.to(tokens.dtype), tokens], dim=1)  # [B, P+T, E]
        hidden = self.gpt2.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state  # [B, P+T, E]
        hidden = hidden[:, prefix.shape[1] - 1 : -1]  # [B, T, E]: the last of the prefix scores token 0
        logits = self.gpt2.get_output_embeddings()(hidden)  # [B, T, V]
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-100)
        return CaptionerOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def generate(
        self,
        embeddings: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Write captions by the language model's own `generate`: int64 [B, at most max_new_tokens], end-of-text behind.

        `kwargs` are those of transformers' `generate`: num_beams, do_sample, temperature, top_p, max_new_tokens, ...
        length_penalty is by default the config's beam_length_penalty.
        guidance_scale above 1 pushes away from what the mean embedding of the training images would say.
        """
        prefix = self.generation_prefix(embeddings, pixel_values).to(self.gpt2.dtype)
        original = OriginalStart(self.gpt2, prefix) if self.config.original_start else None
        prefix = original.later if original else prefix
        mask = torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device)
        config = copy.deepcopy(self.generation_config if generation_config is None else generation_config)
        others = config.update(**kwargs)  # arguments that are no decoding settings, such as a streamer
        if generation_config is None and "length_penalty" not in kwargs and (config.num_beams or 1) > 1:
            config.length_penalty = self.config.beam_length_penalty
        strength, config.guidance_scale = config.guidance_scale, None
        processors = [*([original] if original else []), *(others.pop("logits_processor", None) or ())]
        if strength not in (None, 1):
            mean = self.generation_prefix(self.mean_embedding.unsqueeze(0)).to(prefix.dtype)  # [1, P, E]
            mean = with_positions_again(self.gpt2, mean) if original else mean
            processors.append(Guidance(self.gpt2, mean, strength))
        with attention_on(prefix.device):
            if (beams := config.num_beams or 1) > 1 and prefix.shape[1] > 1:
                # The beams share their picture's prefix: all of it but the last vector is computed once.
                cache = self.gpt2.base_model(inputs_embeds=prefix[:, :-1], use_cache=True).past_key_values
                cache.batch_repeat_interleave(beams)
                others["past_key_values"] = cache
            output = self.gpt2.generate(
                inputs_embeds=prefix, attention_mask=mask, generation_config=config,
                logits_processor=LogitsProcessorList(processors), **others,
            )  # fmt: skip
        if original and getattr(output, "logits", None):
            output.logits = (original.first_scores(output.logits[0]), *output.logits[1:])
        return output


AutoModel.register(CaptionerConfig, Captioner, exist_ok=True)
