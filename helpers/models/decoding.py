"""The choice of a caption from the language model's probabilities: greedy, by beam search or by sampling."""

from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..words.people import neutral

LONGEST_BY_DEFAULT = 40  # tokens of a caption, end-of-text included, if max_tokens is not given


@dataclass(frozen=True)
class Decoding:
    """The choices of a decoding. The default is greedy: the likeliest token each time.

    beams: above 1, beam search. temperature: above 0, sampling, from the smallest set of tokens whose probabilities sum
    to top_p. max_tokens: the longest caption, end-of-text included; None is 40, or fewer if its context is shorter.
    seed: for the sampling. guidance: 1 is off; the larger, the more a caption must be about its own picture
    (processors.py). neutral: words for gender become words for people (words/people.py).
    Raises UserError on a value out of range.
    """

    beams: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int | None = None
    seed: int = 0
    guidance: float = 1.0
    neutral: bool = False

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
        """Say it in words: "greedy", "5 beams, guidance 1.5", "T 1.0, top p 0.90, seed 3, at most 10 tokens"."""
        sampled = f"T {self.temperature:.1f}, top p {self.top_p:.2f}, seed {self.seed}"
        words = [f"{self.beams} beams"] if self.beams > 1 else []
        words += [sampled] if self.temperature else []
        words = words or ["greedy"]
        words += [f"guidance {self.guidance:g}"] if self.guidance != 1 else []
        words += ["neutral words"] if self.neutral else []
        return ", ".join(words + ([f"at most {self.max_tokens} tokens"] if self.max_tokens else []))

    def worded(self, caption: str) -> str:
        """Return a caption as GPT-2 wrote it, or in neutral words if these are chosen."""
        return neutral(caption) if self.neutral else caption

    def for_generate(self, longest: int) -> dict[str, Any]:
        """Return the arguments for transformers' `generate`. Raises UserError beyond the `longest` tokens that fit."""
        if self.max_tokens is not None and self.max_tokens > longest:
            raise UserError(
                f"max_tokens is {self.max_tokens}, but only {longest} fit behind the prefix into the context: "
                f"choose at most {longest}"
            )
        max_tokens = min(LONGEST_BY_DEFAULT, longest) if self.max_tokens is None else self.max_tokens
        choices: dict[str, Any] = {
            "num_beams": self.beams, "max_new_tokens": max_tokens, "do_sample": False, "guidance_scale": self.guidance
        }  # fmt: skip
        if self.temperature > 0:
            choices |= {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return choices
