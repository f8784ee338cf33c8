"""BLEU, METEOR, ROUGE-L and CIDEr as COCO's evaluation computes them (pycocoevalcap), with resamples of each.

Everything here takes tokenised texts: words in lower case with a space between them (`ptb_words`).
`written` holds one caption per image, `references` at least one text per image.
"""

import subprocess
from collections.abc import Iterable, Sequence
from types import TracebackType

import numpy as np

from ..words.ptb_tokenizer import command, jar
from .bootstrap import Score

ORDERS = 4  # n-grams of 1 to so many words, in BLEU and in CIDEr
LENGTHS, CHUNKS, MATCHED = [0, 1], 20, [21, 22]  # METEOR's counts: words of caption and reference, chunks, matches
SMALL, TINY = 1e-9, 1e-15  # keep pycocoevalcap's BLEU from dividing by zero


def bleu(written: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Score]:
    """Return BLEU-1 to 4 of the corpus, 0 to 1, as bleu_1 to bleu_4: n-gram counts are summed over images first."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=ORDERS)
    for caption, known in zip(written, references, strict=True):
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
    """Return BLEU-n [R] of summed lengths, matches and guesses [R, 2 + 2 * ORDERS], by pycocoevalcap's formula."""
    length, reference, correct, guess = sums[:, 0], sums[:, 1], sums[:, 2 : 2 + n], sums[:, 2 + ORDERS : 2 + ORDERS + n]
    precision = np.prod((correct + TINY) / (guess + SMALL), axis=1) ** (1 / n)
    ratio = (length + TINY) / (reference + SMALL)
    return precision * np.exp(np.minimum(0, 1 - 1 / ratio))


def meteor_score(written: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """Return METEOR of the corpus, 0 to 1, from counts summed over images. Raises ChildProcessError if Java dies."""
    with Meteor() as process:
        counts = process.counts(written, references)
        return Score.of(to_sum(counts), process.scores, process.scores(counts))


def to_sum(counts: np.ndarray) -> np.ndarray:
    """Return METEOR's counts [N, K] as the corpus sums them: a caption that is a reference has no chunk.

    METEOR punishes a caption that matches in many chunks. The jar leaves the one chunk of a caption that matches its
    reference completely out of its own sum; with it, every perfect caption would lower the score of the corpus.
    """
    counts = counts.copy()
    complete = (counts[:, CHUNKS] == 1) & (counts[:, MATCHED] == counts[:, LENGTHS]).all(axis=1)
    counts[complete, CHUNKS] = 0
    return counts


def rouge_l(written: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """Return ROUGE-L, 0 to 1: the mean over images."""
    from pycocoevalcap.rouge.rouge import Rouge

    scorer = Rouge()
    return Score.mean(np.array([scorer.calc_score([c], known) for c, known in zip(written, references, strict=True)]))


def cider(written: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """Return CIDEr-D, 0 to 10 (papers write it times 100): the mean over images.

    The document frequencies are those of all these references, in every resample too. One image alone scores 0.
    """
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    scorer = CiderScorer(n=ORDERS)
    for caption, known in zip(written, references, strict=True):
        scorer += (caption, known)
    scorer.compute_doc_freq()  # not compute_score, which fails if no reference has a word
    return Score.mean(np.array(scorer.compute_cider()))


class Meteor:
    """METEOR 1.5 (Denkowski and Lavie 2014): the jar in pycocoevalcap as a process that ends with the `with` block.

    It takes some 15 seconds to read its tables. It counts what a caption shares with its references; a score is a
    function of such counts, and the score of several images is that function of their summed counts.
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

    def counts(self, written: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """Return the counts, float [N, K]. Raises ChildProcessError if the process has ended."""
        lines = (" ||| ".join(["SCORE", *known, caption]) for caption, known in zip(written, references, strict=True))
        return np.array([line.split() for line in self._answers(lines)], dtype=float)

    def scores(self, counts: np.ndarray) -> np.ndarray:
        """Return the score of each row of counts [R, K], float [R]. Raises ChildProcessError as `counts` does."""
        lines = ("EVAL ||| " + " ".join(map(str, row)) for row in counts.tolist())
        return np.array([float(answer) for answer in self._answers(lines, twice=True)])

    def _answers(self, lines: Iterable[str], *, twice: bool = False) -> Iterable[str]:
        """Yield the answer to each line. twice: EVAL is answered by each image's score, then by the score of all."""
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
