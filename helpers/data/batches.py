"""Captions tokenised once, images as embeddings, and every batch a pure function of the step.

There is no iterator whose position would have to be saved: `batches.at(1234)` is the same batch in every session.
"""

from functools import lru_cache
from typing import NamedTuple

import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from ..models.captioner import IGNORE
from .embedding_cache import EmbeddingCache, Rows

TYPICAL = 500  # images of which all patches are looked at for their mean and spread
TOGETHER = 1000  # captions that are tokenised at a time; the tokenizer keeps kilobytes of each until it is done


class Batch(NamedTuple):
    """embeddings: float32 [B, D] or [B, S, D]; input_ids: int64 [B, T].

    labels: int64 [B, T], the same ids, and -100 where there is padding.
    """

    embeddings: torch.Tensor
    input_ids: torch.Tensor
    labels: torch.Tensor

    @property
    def targets(self) -> int:
        """How many caption tokens are scored."""
        return int((self.labels != IGNORE).sum())

    def part(self, index: int, parts: int) -> tuple["Batch", float]:
        """One process's share, every `parts`-th row from row `index` on, and what its mean loss weighs.

        The losses of all parts, weighed so, have the whole batch's mean loss as their mean: a token counts the same
        whichever process scores it. A process that is left without a row takes one with weight 0, for all of them
        must compute together.
        """
        if index >= len(self.input_ids):
            return Batch(*(tensor[:1] for tensor in self)), 0.0
        part = Batch(*(tensor[index::parts] for tensor in self))
        return part, part.targets * parts / self.targets


def tokenize(
    tokenizer: PreTrainedTokenizerBase, captions: list[str], max_tokens: int
) -> tuple[list[torch.Tensor], list[str]]:
    """Token ids of each caption, int64 [T] with exactly one end-of-text at the end, and the captions that were cut.

    A caption longer than `max_tokens`, end-of-text included, is cut there: one caption of 1,000 tokens would pad all
    its neighbours. The text "<|endoftext|>" in a caption is plain text, not the special token.
    """
    tokens, cut = [], []
    for start in range(0, len(captions), TOGETHER):
        some = captions[start : start + TOGETHER]
        ids = tokenizer(some, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        tokens += [torch.tensor([*row[: max_tokens - 1], tokenizer.eos_token_id]) for row in ids]
        cut += [caption for caption, row in zip(some, ids, strict=True) if len(row) + 1 > max_tokens]
    return tokens, cut


class CaptionBatches:
    """Batches over the rows of a captions table whose images are in the cache.

    `cut` lists captions that were too long and `missing` images that have no embedding; both are left to the caller
    to report. Raises UserError when nothing is left.
    """

    def __init__(
        self,
        captions: pd.DataFrame,
        cache: EmbeddingCache,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        max_tokens: int = 64,
        seed: int = 0,
    ):
        """captions: columns image_name and caption. seed: of the order in which the captions come."""
        known = captions.image_name.isin(cache.image_names)
        self.missing = sorted(set(captions.image_name[~known]))
        self.captions = captions[known].reset_index(drop=True)
        if self.captions.empty:
            raise UserError(
                f"none of the {len(captions)} captions has its image in the cache of {len(cache)} embeddings: "
                "check that captions and cache belong to the same pictures"
            )
        self.image_names = list(self.captions.image_name.unique())
        self.embeddings = cache.array(self.image_names)  # float32 [N, D], or [N, S, D] that is read batch by batch
        position = {name: row for row, name in enumerate(self.image_names)}
        self.image_of = torch.tensor([position[name] for name in self.captions.image_name])  # int64, one a caption
        self.tokens, self.cut = tokenize(tokenizer, list(self.captions.caption), max_tokens)
        self.batch_size, self.seed = batch_size, seed
        self._order_of = lru_cache(maxsize=2)(self._order)

    def typical_embeddings(self) -> torch.Tensor:
        """What to take mean and spread from: all embeddings, [N, D]; of patches, [n, S, D], those of some images."""
        return self.embeddings[:: -(-len(self.embeddings) // TYPICAL) if isinstance(self.embeddings, Rows) else 1]

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.tokens) // self.batch_size)

    def at(self, step: int) -> Batch:
        """The batch of training step `step`, which counts on over the epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self.rows(self._order_of(epoch)[position])

    def longest(self) -> Batch:
        """A batch of the longest captions, which needs more memory than any other can."""
        by_length = sorted(range(len(self.tokens)), key=lambda row: len(self.tokens[row]))
        return self.rows(by_length[-self.batch_size :])

    def in_order(self) -> list[list[int]]:
        """All rows once, in the table's order, a batch at a time: for validation and evaluation."""
        return [rows.tolist() for rows in torch.arange(len(self.tokens)).split(self.batch_size)]

    def rows(self, rows: list[int]) -> Batch:
        """The batch of these rows of the captions table."""
        input_ids = pad_sequence([self.tokens[row] for row in rows], batch_first=True)  # [B, T], padded with 0
        lengths = torch.tensor([len(self.tokens[row]) for row in rows])
        padding = torch.arange(input_ids.shape[1]) >= lengths.unsqueeze(1)  # [B, T]
        return Batch(self.embeddings[self.image_of[rows]], input_ids, input_ids.masked_fill(padding, IGNORE))

    def _order(self, epoch: int) -> list[list[int]]:
        """One epoch's batches of rows, shuffled and not grouped by length, which would group them by content too.

        On the drawn world, where short captions are those of single objects, two epochs of batches grouped by length
        (in pools of 8) got 0.06 and 0.15 of the validation captions right, shuffled ones 0.96 and 0.94 (seeds 0, 1).
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.tokens), generator=generator)
        return [rows.tolist() for rows in order.split(self.batch_size)]
