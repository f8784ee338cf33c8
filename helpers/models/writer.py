"""A captioner with its tokenizer and image processor: pictures in, captions out, one folder on disk."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

from ..config import Config
from ..encoders.processor import load_processor
from ..encoders.vision import ImageEncoder
from ..errors import UserError
from ..language.freezing import freeze, merged_state
from ..language.language_model import longest_text
from ..language.tokenizer import load_tokenizer, refuse_another, vocabulary_sha256
from ..runtime.files import atomic_path, write_json
from ..runtime.libraries import one_line_errors, quietly
from ..runtime.model_folders import TRAINED_ON, captioner_design, captioner_folder, read_trained_on
from .captioner import Captioner
from .captioner_config import CaptionerConfig
from .decoding import Decoding
from .loading import load_config, load_encoder, load_gpt2, load_weights


class Embeddings(Protocol):
    """Embeddings of N images, [N, D] or [N, S, D]: a tensor, or rows of a cache that are read when they are sliced."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> torch.Tensor: ...


@dataclass(frozen=True)
class Candidate:
    """A caption and the mean log-probability of its tokens in nats, end-of-text included."""

    caption: str
    log_probability: float

    @property
    def probability(self) -> float:
        """The geometric mean of its tokens' probabilities, 0 to 1."""
        return math.exp(self.log_probability)


@dataclass(frozen=True)
class CaptionWriter:
    """A captioner, its language model's tokenizer and its encoder's image processor, which belong together.

    trained_on: the hashes of the files of its training pictures (data/changes.py), as far as they are known.
    """

    captioner: Captioner
    tokenizer: PreTrainedTokenizerBase
    processor: BaseImageProcessor
    trained_on: frozenset[str] = frozenset()

    @classmethod
    def assemble(
        cls, config: Config, clip: ImageEncoder | None = None, *, captioner_class: type[Captioner] = Captioner
    ) -> "CaptionWriter":
        """Build a new captioner: the pretrained pair, a fresh mapping module, and what is frozen as the config says.

        If the config starts from a captioner, that one is loaded. clip: the image encoder, by default the config's.
        Raises UserError if the parts do not fit together.
        """
        if config.start_from:
            return cls._assemble_from(config, captioner_class)
        clip = load_configs_encoder(config) if clip is None else clip
        gpt2, tokenizer = load_gpt2(config.gpt2)
        torch.manual_seed(config.seed)
        shapes = CaptionerConfig(
            vision_config=clip.vision.config, text_config=gpt2.config, mapper=config.mapper,
            prefix_length=config.prefix_length, mapper_layers=config.mapper_layers, mapper_heads=config.mapper_heads,
            dropout=config.dropout, pooling=config.pooling, embedding_noise=config.embedding_noise,
            beam_length_penalty=config.length_penalty, familiarity=1,
            learned_without_picture=config.text_share > 0,
        )  # fmt: skip
        captioner = captioner_class(shapes, clip.vision, gpt2)
        if captioner.longest_caption < 2:
            raise UserError(
                f"prefix_length is {config.prefix_length}, but the context of {config.gpt2} has "
                f"{longest_text(gpt2.config)} positions for prefix and caption: choose a shorter prefix"
            )
        freeze(captioner.gpt2, config)
        return cls(captioner, tokenizer, clip.processor)

    @classmethod
    def _assemble_from(cls, config: Config, captioner_class: type[Captioner]) -> "CaptionWriter":
        captioner_design(config.start_from, config.to_dict())
        writer = cls.load(config.start_from, captioner_class=captioner_class)
        shapes = writer.captioner.config
        shapes.embedding_noise, shapes.beam_length_penalty = config.embedding_noise, config.length_penalty
        shapes.learned_without_picture = config.text_share > 0 or shapes.learned_without_picture
        freeze(writer.captioner.gpt2, config)
        return writer

    @classmethod
    def load(
        cls, folder: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32,
        captioner_class: type[Captioner] = Captioner,
    ) -> "CaptionWriter":  # fmt: skip
        """Load what `save` wrote. folder: a captioner's folder, or the folder of a run, whose captioner is taken.

        dtype: the precision to compute in; a half is enough to write captions, but too coarse to measure likelihoods.
        Captions end with the tokenizer's end-of-text, as in training. Raises UserError if there is no captioner, or its
        parts do not fit each other.
        """
        folder = captioner_folder(folder)
        config = load_config(str(folder), types=(CaptionerConfig.model_type,), what="captioner")
        processor = load_processor(str(folder), config.vision_config, what="captioner")
        captioner = load_weights(captioner_class, str(folder), config, what="captioner")
        vocabulary = config.text_config.vocab_size
        tokenizer = load_tokenizer(str(folder), vocabulary, what="captioner")
        refuse_another(tokenizer, str(folder), vocabulary=vocabulary, sha256=config.tokenizer_sha256)
        captioner.end_with(tokenizer.eos_token_id)
        if not (captioner.embedding_std > 0).all():
            raise UserError(f"{folder} has numbers in embedding_std that are not above 0; give another captioner")
        return cls(captioner.eval().to(device, dtype), tokenizer, processor, read_trained_on(folder))

    def save(self, folder: str | Path, *, half: bool = False, card: str | None = None) -> None:
        """Save captioner, tokenizer, image processor and what it was trained on to `folder` atomically.

        half: weights in float16. card: the model card, in Markdown, if there is to be one.
        """
        state = {"state_dict": half_state(self.captioner)} if half else {}
        self.captioner.config.tokenizer_sha256 = vocabulary_sha256(self.tokenizer)
        with atomic_path(folder) as partial, quietly():
            self.captioner.save_pretrained(partial, **state)
            self.tokenizer.save_pretrained(partial)
            self.processor.save_pretrained(partial)
            if self.trained_on:
                write_json(partial / TRAINED_ON, sorted(self.trained_on))
            if card is not None:
                (partial / "README.md").write_text(card, encoding="utf-8")

    def push_to_hub(self, repo_id: str, *, card: str | None = None, private: bool = False) -> str:
        """Put the folder that `save` makes on the Hugging Face hub, and return its address there.

        repo_id: "user/name". It needs a token: `hf auth login`. Raises UserError if the hub refuses it.
        """
        from huggingface_hub import HfApi

        api = HfApi()
        with tempfile.TemporaryDirectory() as place, one_line_errors(repo_id, "repository"):
            self.save(Path(place) / "captioner", card=card)
            api.create_repo(repo_id, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo_id, folder_path=Path(place) / "captioner"))

    def clip(self, name: str = "captioner") -> ImageEncoder:
        """Return the captioner's own CLIP, to embed pictures for it. name: what messages call it."""
        return ImageEncoder(self.captioner.clip, self.processor, name, self.captioner.config.pooling)

    def embed(self, pictures: list[Image.Image]) -> torch.Tensor:
        """Return the embeddings of RGB pictures as this captioner takes them, float32 [B, D] or [B, S, D]."""
        return self.clip().embed(pictures)

    def unlike_training(self, embeddings: torch.Tensor) -> list[bool | None]:
        """Return whether each picture is unlike those of the training, by its embedding; None if that is not known."""
        strangeness = self.captioner.strangeness(embeddings)
        return [None] * len(embeddings) if strangeness is None else (strangeness > 1).tolist()

    def write(self, embeddings: Embeddings, decoding: Decoding | None = None, *, batch_size: int = 64) -> list[str]:
        """Write one caption for each of the embeddings [N, D] or [N, S, D], in their order, `batch_size` at a time."""
        decoding = decoding or Decoding()
        choices = decoding.for_generate(self.captioner.longest_caption)
        starts = range(0, len(embeddings), batch_size)
        written: list[str] = []
        with _seeded(decoding.seed):
            for start in tqdm(starts, desc="captions", unit="batch", disable=len(starts) < 2):
                batch = embeddings[start : start + batch_size].to(self.captioner.device)
                ids = self.captioner.generate(batch, **choices)
                written += self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [decoding.worded(caption.strip()) for caption in written]

    def candidates(self, embeddings: torch.Tensor, decoding: Decoding | None = None) -> list[Candidate]:
        """Return the captions of one picture in the order of its decoding: all beams of a beam search, else one.

        embeddings: the picture's, [1, D] or [1, S, D]. The first candidate is the caption that `write` gives.
        Probabilities are the captioner's own, before temperature and top-p, so different decodings can be compared.
        """
        decoding = decoding or Decoding()
        choices = decoding.for_generate(self.captioner.longest_caption)
        choices["num_return_sequences"] = 1 if decoding.temperature > 0 else decoding.beams
        with _seeded(decoding.seed):
            output = self.captioner.generate(
                embeddings.to(self.captioner.device), **choices, return_dict_in_generate=True, output_logits=True
            )
        ids = output.sequences  # [beams, T]
        logits = tuple(step.float() for step in output.logits)
        nats = self.captioner.gpt2.compute_transition_scores(
            ids, logits, output.get("beam_indices"), normalize_logits=True
        )
        ends = torch.isin(ids, torch.tensor(self.captioner.endings, device=ids.device))
        counted = ends.cumsum(dim=1) - ends.int() == 0  # up to the first end-of-text; behind it is padding
        means = (nats * counted).sum(dim=1) / counted.sum(dim=1)
        written = [
            decoding.worded(caption.strip()) for caption in self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        ]
        return [Candidate(caption, mean) for caption, mean in zip(written, means.tolist(), strict=True)]


def half_state(captioner: Captioner) -> dict[str, torch.Tensor]:
    """Return the captioner's tensors with all weights in float16; the statistics in its buffers stay as they are."""
    kept, halves = {name for name, _ in captioner.named_buffers()}, {}
    state = merged_state(captioner)
    for name, tensor in state.items():
        if name not in kept and tensor.is_floating_point():  # tied weights stay one tensor
            state[name] = halves.setdefault(tensor.data_ptr(), tensor.half())
    return state


def load_configs_encoder(config: Config) -> ImageEncoder:
    """Load the config's image encoder: that of the captioner it starts from, if any."""
    if config.start_from:
        return CaptionWriter.load(config.start_from).clip(config.start_from)
    return load_encoder(config.clip, pooling=config.pooling)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the sampling, and leave the caller's random state as it was, on every card."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
