"""METEOR 1.5 (Denkowski and Lavie 2014): the jar in pycocoevalcap, spoken to as COCO's evaluation does."""

import subprocess
from collections.abc import Iterable, Sequence
from types import TracebackType

import numpy as np

from .bootstrap import Score
from .ptb_tokenizer import command, jar


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


ORDERS = 4  # n-grams up to this length, in BLEU and in CIDEr
SMALL, TINY = 1e-9, 1e-15  # keep pycocoevalcap's BLEU from dividing by zero


def bleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Score]:
    """BLEU-1 to 4 of the corpus, from n-gram counts summed over images; a resample sums the counts of its images."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=ORDERS)
    for caption, known in zip(captions, references, strict=True):
        scorer += (caption, known)
    _, per_image = scorer.compute_score(option="closest", verbose=0)
    counts = np.array([
        [kept["testlen"], min((abs(length - kept["testlen"]), length) for length in kept["reflen"])[1],
         *kept["correct"], *kept["guess"]]
        for kept in scorer.ctest
    ], dtype=float)  # fmt: skip
    return {
        f"bleu_{n}": Score.of(counts, lambda sums, n=n: _bleu_of_sums(sums, n), np.array(per_image[n - 1]))
        for n in range(1, ORDERS + 1)
    }


def _bleu_of_sums(sums: np.ndarray, n: int) -> np.ndarray:
    """BLEU-n [R] of summed lengths, matches and guesses [R, 2 + 2 * ORDERS], by pycocoevalcap's formula."""
    length, reference, correct, guess = sums[:, 0], sums[:, 1], sums[:, 2 : 2 + n], sums[:, 2 + ORDERS : 2 + ORDERS + n]
    precision = np.prod((correct + TINY) / (guess + SMALL), axis=1) ** (1 / n)
    ratio = (length + TINY) / (reference + SMALL)
    return precision * np.exp(np.minimum(0, 1 - 1 / ratio))


def meteor_score(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """METEOR of the corpus, from counts summed over images."""
    with Meteor() as process:
        counts = process.counts(captions, references)
        return Score.of(counts, process.scores, process.scores(counts))


def rouge_l(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    from pycocoevalcap.rouge.rouge import Rouge

    scorer = Rouge()
    return Score.mean(np.array([scorer.calc_score([c], known) for c, known in zip(captions, references, strict=True)]))


def cider(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """CIDEr-D; its document frequencies are those of these references, in every resample. Of one image it is 0."""
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    scorer = CiderScorer(n=ORDERS)
    for caption, known in zip(captions, references, strict=True):
        scorer += (caption, known)
    scorer.compute_doc_freq()  # not compute_score, which fails where no reference has a word
    return Score.mean(np.array(scorer.compute_cider()))
