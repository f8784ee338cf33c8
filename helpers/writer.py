"""A captioner together with its tokenizer and image processor: pictures in, captions out, one folder on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm
from transformers import AutoTokenizer, CLIPImageProcessor, PreTrainedTokenizerBase

from .atomic import atomic_path
from .captioner import Captioner, CaptionerConfig
from .config import Config
from .errors import UserError
from .freezing import freeze
from .pretrained import Clip, load_gpt2


@dataclass(frozen=True)
class Decoding:
    """How a caption is chosen. The default is greedy: the likeliest token each time.

    beams above 1: beam search. temperature above 0: sampling, from the smallest set of tokens whose probabilities sum
    to top_p. max_tokens: the longest caption, end-of-text included. seed: of the sampling.
    """

    beams: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        if self.beams < 1 or self.max_tokens < 1:
            raise UserError(f"beams is {self.beams} and max_tokens is {self.max_tokens}, but both must be at least 1")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"temperature is {self.temperature} and top_p is {self.top_p}, but temperature must be 0 (greedy) or "
                "above and top_p above 0 and at most 1"
            )

    def for_generate(self) -> dict[str, Any]:
        """These choices as arguments of transformers' `generate`."""
        choices: dict[str, Any] = {"num_beams": self.beams, "max_new_tokens": self.max_tokens, "do_sample": False}
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
            config.mapper_heads, config.dropout,
        )  # fmt: skip
        captioner = Captioner(shapes, clip.vision, gpt2)
        freeze(captioner.gpt2, config.freezing, config.last_n, config.train_embeddings)
        return cls(captioner, tokenizer, clip.processor)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> "CaptionWriter":
        """The captioner that `save` wrote. Raises UserError when there is none in `folder`."""
        if not (Path(folder) / "config.json").exists():
            raise UserError(
                f"{folder} holds no captioner: give the `captioner` folder inside a run, or train one first"
            )
        try:
            captioner = Captioner.from_pretrained(folder).eval().to(device)
            return cls(captioner, AutoTokenizer.from_pretrained(folder), CLIPImageProcessor.from_pretrained(folder))
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{folder} holds no captioner that can be loaded: {str(error).splitlines()[0]}") from error

    def save(self, folder: str | Path) -> None:
        """Write captioner, tokenizer and image processor to `folder`, whole or not at all."""
        with atomic_path(folder) as partial:
            for part in (self.captioner, self.tokenizer, self.processor):
                part.save_pretrained(partial)

    @torch.no_grad()
    def embed(self, pictures: list[Image.Image]) -> torch.Tensor:
        """CLIP's embeddings of RGB pictures, float32 [B, D]."""
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"].to(self.captioner.device)
        return self.captioner.clip(pixel_values=pixels).pooler_output.float()

    def write(self, embeddings: torch.Tensor, decoding: Decoding | None = None, batch_size: int = 64) -> list[str]:
        """One caption for each of the embeddings [N, D], decoded `batch_size` at a time, in the same order."""
        decoding = decoding or Decoding()
        batches = embeddings.split(batch_size)
        captions: list[str] = []
        with torch.random.fork_rng():  # sampling leaves the caller's random state as it was
            torch.manual_seed(decoding.seed)
            for batch in tqdm(batches, desc="captions", unit="batch", disable=len(batches) < 2):
                ids = self.captioner.generate(batch.to(self.captioner.device), **decoding.for_generate())
                captions += self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [caption.strip() for caption in captions]
