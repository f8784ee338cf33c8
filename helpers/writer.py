"""A captioner together with its tokenizer and image processor: pictures in, captions out, one folder on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from .atomic import atomic_path
from .captioner import Captioner, CaptionerConfig
from .config import Config
from .embeddings import Rows
from .errors import UserError
from .freezing import freeze
from .pretrained import Clip, CLIPImageProcessor, load_gpt2, load_model, one_line_errors, quietly


@dataclass(frozen=True)
class Decoding:
    """How a caption is chosen. The default is greedy: the likeliest token each time.

    beams above 1: beam search. temperature above 0: sampling, from the smallest set of tokens whose probabilities sum
    to top_p. max_tokens: the longest caption, end-of-text included; None is 40, or what fits into GPT-2's context.
    seed: of the sampling. guidance: 1 is off; the more above it, the more a caption must be about its own picture
    (guidance.py).
    """

    beams: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int | None = None
    seed: int = 0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.beams < 1 or (self.max_tokens is not None and self.max_tokens < 1):
            raise UserError(f"beams is {self.beams} and max_tokens is {self.max_tokens}, but both must be at least 1")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed is {self.seed}, but must be between 0 and {2**31 - 1}")
        if not 0 <= self.temperature < float("inf") or not 0 < self.top_p <= 1:
            raise UserError(
                f"temperature is {self.temperature} and top_p is {self.top_p}, but temperature must be 0 (greedy) or "
                "above and top_p above 0 and at most 1"
            )
        if not 0 < self.guidance < float("inf"):
            raise UserError(f"guidance is {self.guidance}, but must be above 0 and finite; 1 is off")

    def __str__(self) -> str:
        """In words: "greedy", "5 beams, guidance 1.5", "T 1.0, top p 0.90, seed 3, at most 10 tokens"."""
        sampled = f"T {self.temperature:.1f}, top p {self.top_p:.2f}, seed {self.seed}"
        words = [f"{self.beams} beams"] if self.beams > 1 else []
        words += [sampled] if self.temperature else []
        words = words or ["greedy"]
        words += [f"guidance {self.guidance:g}"] if self.guidance != 1 else []
        return ", ".join(words + ([f"at most {self.max_tokens} tokens"] if self.max_tokens else []))

    def for_generate(self, longest: int) -> dict[str, Any]:
        """These choices for transformers' `generate`. Raises UserError beyond the `longest` tokens that fit."""
        if self.max_tokens is not None and self.max_tokens > longest:
            raise UserError(
                f"max_tokens is {self.max_tokens}, but only {longest} fit behind the prefix into GPT-2's context: "
                f"choose at most {longest}"
            )
        max_tokens = min(40, longest) if self.max_tokens is None else self.max_tokens
        choices: dict[str, Any] = {
            "num_beams": self.beams, "max_new_tokens": max_tokens, "do_sample": False, "guidance_scale": self.guidance
        }  # fmt: skip
        if self.temperature > 0:
            choices |= {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return choices


@dataclass(frozen=True)
class CaptionWriter:
    captioner: Captioner
    tokenizer: PreTrainedTokenizerBase
    processor: CLIPImageProcessor

    @classmethod
    def assemble(cls, config: Config, clip: Clip) -> "CaptionWriter":
        """A new captioner: the pretrained pair, a fresh mapping module, GPT-2 frozen as the config says."""
        gpt2, tokenizer = load_gpt2(config.gpt2)
        torch.manual_seed(config.seed)
        shapes = CaptionerConfig(
            clip.vision.config, gpt2.config, config.mapper, config.prefix_length, config.mapper_layers,
            config.mapper_heads, config.dropout, config.pooling,
        )  # fmt: skip
        captioner = Captioner(shapes, clip.vision, gpt2)
        if captioner.longest_caption < 2:
            raise UserError(
                f"prefix_length is {config.prefix_length}, but GPT-2's context has {gpt2.config.n_positions} positions "
                "for prefix and caption: choose a shorter prefix"
            )
        freeze(captioner.gpt2, config.freezing, config.last_n, config.train_embeddings, config.lora_rank)
        return cls(captioner, tokenizer, clip.processor)

    @classmethod
    def load(
        cls, folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "CaptionWriter":
        """The captioner that `save` wrote. Raises UserError when there is none in `folder`.

        dtype: in which it computes. A half is enough to write captions; to measure likelihoods it is too coarse.
        """
        if not any(Path(folder).glob("*.safetensors")):
            raise UserError(f"{folder} holds no captioner: give the `captioner` folder of a run, or train one first")
        captioner = load_model(Captioner, str(folder), (CaptionerConfig.model_type,), "captioner")
        with one_line_errors(str(folder), "captioner"), quietly():
            tokenizer, processor = (part.from_pretrained(folder) for part in (AutoTokenizer, CLIPImageProcessor))
        return cls(captioner.eval().to(device, dtype), tokenizer, processor)

    def save(self, folder: str | Path) -> None:
        """Write captioner, tokenizer and image processor to `folder`, whole or not at all."""
        with atomic_path(folder) as partial, quietly():
            for part in (self.captioner, self.tokenizer, self.processor):
                part.save_pretrained(partial)

    def clip(self, name: str = "captioner") -> Clip:
        """The captioner's own CLIP, with which to embed pictures for it. name: what messages call it."""
        return Clip(self.captioner.clip, self.processor, name, self.captioner.config.pooling)

    def embed(self, pictures: list[Image.Image]) -> torch.Tensor:
        """CLIP's embeddings of RGB pictures, float32 [B, D] or [B, S, D], as this captioner takes them."""
        return self.clip().encode(pictures)

    def write(
        self, embeddings: torch.Tensor | Rows, decoding: Decoding | None = None, batch_size: int = 64
    ) -> list[str]:
        """One caption for each of the embeddings [N, D] or [N, S, D], `batch_size` at a time, in the same order."""
        decoding = decoding or Decoding()
        choices = decoding.for_generate(self.captioner.longest_caption)
        starts = range(0, len(embeddings), batch_size)
        captions: list[str] = []
        # Sampling leaves the caller's random state as it was, on every card.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(decoding.seed)
            for start in tqdm(starts, desc="captions", unit="batch", disable=len(starts) < 2):
                batch = embeddings[start : start + batch_size].to(self.captioner.device)
                ids = self.captioner.generate(batch, **choices)
                captions += self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [caption.strip() for caption in captions]
