"""The choice of tokens without PyTorch: greedy, or the beam search of transformers' `generate` in small.

A search writes the caption of one picture. It is told the scores of the next token behind each of its rows, and says
which rows go on, with which tokens.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ending:
    """The end of a caption: one of these tokens, or so many tokens in all. penalty: exponent of a beam's length."""

    tokens: tuple[int, ...]
    longest: int
    penalty: float

    def ends(self, caption: list[int]) -> bool:
        return caption[-1] in self.tokens or len(caption) == self.longest


class Greedy:
    """The likeliest token each time."""

    def __init__(self, ending: Ending):
        self.ending, self.caption, self.rows = ending, [], 1

    def advance(self, scores: np.ndarray) -> list[int]:
        """Take scores [1, V]; return the rows that go on: [0], or none at the end."""
        self.caption.append(int(scores[0].argmax()))
        self.rows = int(not self.ending.ends(self.caption))
        return [0] * self.rows

    def last_tokens(self) -> list[int]:
        return self.caption[-1:] * self.rows


@dataclass(frozen=True)
class Beam:
    score: np.float32  # log-probability; of a finished one divided by a power of its length
    caption: list[int]
    row: int = 0  # where its scores are found in the next step, and later the row it came from


class BeamSearch:
    """The likeliest captions, `beams` at a time, as transformers 5 finds them with early_stopping=False."""

    def __init__(self, ending: Ending, beams: int):
        self.ending, self.beams = ending, beams
        self.running, self.finished = [Beam(np.float32(0), [])], []

    @property
    def rows(self) -> int:
        return len(self.running)

    @property
    def caption(self) -> list[int]:
        """The best caption, once the search has ended."""
        return self.finished[0].caption

    def advance(self, scores: np.ndarray) -> list[int]:
        """Take scores [rows, V]; return the rows that go on, each once per beam that continues it."""
        likelihoods = _log_softmax(scores) + np.array([beam.score for beam in self.running])[:, None]
        best = _largest(likelihoods.ravel(), (1 + len(self.ending.tokens)) * self.beams)
        length = len(self.running[0].caption) + 1
        going = []
        for rank, index in enumerate(best):
            row, token = divmod(int(index), scores.shape[1])
            beam = Beam(likelihoods[row, token], [*self.running[row].caption, token], row)
            if not self.ending.ends(beam.caption):
                going.append(beam)
            elif rank < self.beams:
                self.finished.append(Beam(beam.score / np.float32(length**self.ending.penalty), beam.caption))
        self.running = going[: self.beams]
        self.finished = sorted(self.finished, key=lambda beam: -beam.score)[: self.beams]
        if going and len(self.finished) == self.beams:
            hope = going[0].score / np.float32(length**self.ending.penalty)
            if hope <= self.finished[-1].score:
                self.running = []
        return [beam.row for beam in self.running]

    def last_tokens(self) -> list[int]:
        return [beam.caption[-1] for beam in self.running]


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    scores = scores - scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def _largest(values: np.ndarray, number: int) -> np.ndarray:
    """Return the indices of the largest values, the largest first."""
    number = min(number, len(values))
    found = np.argpartition(-values, number - 1)[:number]
    return found[np.argsort(-values[found], kind="stable")]
