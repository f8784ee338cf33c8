"""Every caption that a decoding arrives at, with how likely the captioner itself finds it."""

import math
from dataclasses import dataclass

import torch

from .writer import CaptionWriter, Decoding

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
