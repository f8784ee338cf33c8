"""A captioner together with its tokenizer and image processor: pictures in, captions out, one folder on disk."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..config import Config
from ..data.embedding_cache import Rows
from ..errors import UserError
from ..runtime.files import atomic_path
from .captioner import Captioner, CaptionerConfig
from .decoding import Decoding
from .freezing import freeze
from .loading import load_gpt2, load_model, one_line_errors, quietly
from .vision import Clip, CLIPImageProcessor


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


SURENESS = ((0.9, "very sure"), (0.7, "fairly sure"), (0.4, "unsure"), (0.0, "guessing"))


@dataclass(frozen=True)
class Candidate:
    """A caption and the mean log-probability of its tokens in nats, end-of-text included."""

    caption: str
    log_probability: float

    @property
    def probability(self) -> float:
        """The geometric mean of its tokens' probabilities, 0 to 1."""
        return math.exp(self.log_probability)

    @property
    def sureness(self) -> str:
        """The same in words. A captioner may well be sure of what is wrong."""
        return next(words for least, words in SURENESS if self.probability >= least)


def candidates(writer: CaptionWriter, embeddings: torch.Tensor, decoding: Decoding | None = None) -> list[Candidate]:
    """The captions of one picture, as its decoding ranks them: all beams of a beam search, else one.

    embeddings: of that picture, [1, D]. The first is the caption that `writer.write` gives. Probabilities are the
    captioner's own, before temperature and top-p, so that those of different decodings can be compared.
    """
    decoding = decoding or Decoding()
    choices = decoding.for_generate(writer.captioner.longest_caption)
    several = {"num_return_sequences": 1 if decoding.temperature > 0 else decoding.beams}
    told = {"return_dict_in_generate": True, "output_logits": True}
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(decoding.seed)
        output = writer.captioner.generate(embeddings.to(writer.captioner.device), **choices, **several, **told)
    ids = output.sequences  # [beams, T]
    logits = tuple(step.float() for step in output.logits)
    nats = writer.captioner.gpt2.compute_transition_scores(
        ids, logits, output.get("beam_indices"), normalize_logits=True
    )
    ends = ids == writer.captioner.config.text_config.eos_token_id
    counted = ends.cumsum(dim=1) - ends.int() == 0  # up to the first end-of-text; what is behind it is padding
    means = (nats * counted).sum(dim=1) / counted.sum(dim=1)
    captions = writer.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [Candidate(text.strip(), mean) for text, mean in zip(captions, means.tolist(), strict=True)]
