"""METEOR 1.5 (Denkowski and Lavie 2014): the jar in pycocoevalcap, spoken to as COCO's evaluation does."""

import subprocess
from collections.abc import Iterable, Sequence
from types import TracebackType

import numpy as np

from .java import command, jar


class Meteor:
    """The jar as a process, which ends with the `with` block. It takes some 15 seconds to read its tables.

    It counts what a caption shares with its references; a score is a function of such counts, and that of several
    images one of their sums.
    """

    def __enter__(self) -> "Meteor":
        path = jar("meteor.meteor", "meteor-1.5.jar")
        arguments = ("-Xmx2G", "-jar", path.name, "-", "-", "-stdio", "-l", "en", "-norm")
        self._process = subprocess.Popen(
            command(*arguments), cwd=path.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, encoding="utf-8",
        )  # fmt: skip
        return self

    def __exit__(self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def counts(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """The counts [N, K] of tokenised captions against their references."""
        lines = (" ||| ".join(["SCORE", *known, caption]) for caption, known in zip(captions, references, strict=True))
        return np.array([line.split() for line in self._answers(lines)], dtype=float)

    def scores(self, counts: np.ndarray) -> np.ndarray:
        """The score [R] of each row of counts [R, K]."""
        lines = ("EVAL ||| " + " ".join(map(str, row)) for row in counts.tolist())
        return np.array([float(answer) for answer in self._answers(lines, twice=True)])

    def _answers(self, lines: Iterable[str], twice: bool = False) -> Iterable[str]:
        """The answer to each line. To EVAL it answers twice: the score of each image, and that of all."""
        for line in lines:
            try:
                self._process.stdin.write(f"{line}\n")
                self._process.stdin.flush()
                answer = self._process.stdout.readline()
                if twice:
                    self._process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            if not answer.strip():
                raise ChildProcessError("METEOR's process has ended")
            yield answer
