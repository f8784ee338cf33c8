"""Captions tokenised once, images as embeddings, and every batch a pure function of the step.

No iterator's position has to be saved: `batches.at(1234)` is the same batch in every session.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from .embedding_cache import EmbeddingCache

IGNORE = -100  # the label of padding, which PyTorch's cross-entropy ignores
TOGETHER = 1000  # captions that are tokenised at a time; the tokenizer holds kilobytes for each until it is done


class Batch(NamedTuple):
    """embeddings: float32 [B, D] or [B, S, D]; input_ids: int64 [B, T].

    labels: int64 [B, T], the same ids, and -100 where there is padding.
    """

    embeddings: torch.Tensor
    input_ids: torch.Tensor
    labels: torch.Tensor

    @property
    def targets(self) -> int:
        """The number of caption tokens that are scored."""
        return int((self.labels != IGNORE).sum())

    def part(self, index: int, parts: int) -> tuple["Batch", float]:
        """Return every `parts`-th row from row `index` on, one process's share, and the weight of its mean loss.

        The mean of all parts' weighted losses is the whole batch's mean loss: a token counts the same in whichever
        process. A process without a row of its own gets one with weight 0, because all of them must compute together.
        """
        if index >= len(self.input_ids):
            return Batch(*(tensor[:1] for tensor in self)), 0.0
        part = Batch(*(tensor[index::parts] for tensor in self))
        return part, part.targets * parts / self.targets


def caption_tokens(
    tokenizer: PreTrainedTokenizerBase, captions: list[str], max_tokens: int
) -> tuple[list[torch.Tensor], list[str]]:
    """Return each caption's token ids, int64 [T] with one end-of-text at the end, and the captions that were cut.

    A caption longer than `max_tokens`, end-of-text included, is cut there. The text "<|endoftext|>" in a caption is
    plain text, not the special token.
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

    `cut` lists the captions that were too long, `missing` the images without an embedding; reporting both is left to
    the caller. Raises UserError if nothing is left.
    """

    def __init__(
        self,
        captions: pd.DataFrame,
        cache: EmbeddingCache,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int,
        max_tokens: int = 64,
        seed: int = 0,
    ):
        """Tokenise `captions` (image_name, caption). seed: of the order in which they come."""
        known = captions.image_name.isin(cache.image_names)
        self.missing = sorted(set(captions.image_name[~known]))
        self.captions = captions[known].reset_index(drop=True)
        if self.captions.empty:
            raise UserError(
                f"none of the {len(captions)} captions has its image in the cache of {len(cache)} embeddings: "
                "check that captions and cache belong to the same pictures"
            )
        self.image_names = list(self.captions.image_name.unique())
        self.embeddings = cache.of(self.image_names)  # [N, D] or [N, S, D]
        position = {name: row for row, name in enumerate(self.image_names)}
        self.image_of = torch.tensor([position[name] for name in self.captions.image_name])  # int64, one a caption
        self.tokens, self.cut = caption_tokens(tokenizer, list(self.captions.caption), max_tokens)
        self.batch_size, self.seed = batch_size, seed
        self._order_of = lru_cache(maxsize=4)(self._order)
        self.text: list[torch.Tensor] = []
        self._texts = 0  # of them in a batch

    def add_text(self, tokens: list[torch.Tensor], share: float, embedding: torch.Tensor) -> None:
        """Add captions without an image to every training batch, `share` times as many as a full one has.

        tokens: as of `caption_tokens`. embedding: what stands for an image, [D] or [S, D].
        """
        self.text, self._no_image = tokens, embedding
        self._texts = round(share * min(self.batch_size, len(self.tokens)))

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.tokens) // self.batch_size)

    def at(self, step: int) -> Batch:
        """Return the batch of training step `step`, which counts from 0 over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        rows = self._order_of(epoch, len(self.tokens))[position * self.batch_size :][: self.batch_size]
        texts = [divmod(place, len(self.text)) for place in range(step * self._texts, (step + 1) * self._texts)]
        chosen = [self.text[self._order_of(-1 - turn, len(self.text))[place]] for turn, place in texts]
        return self._batch(rows, chosen)

    def longest(self) -> Batch:
        """Return a batch of the longest captions, which needs the most memory of all."""
        rows = _longest(self.tokens)[-self.batch_size :]
        texts = _longest(self.text)[max(0, len(self.text) - self._texts) :]
        return self._batch(rows, [self.text[row] for row in texts])

    def in_order(self) -> list[list[int]]:
        """Return the rows of each batch in the table's order, every row once: for validation and evaluation."""
        return [rows.tolist() for rows in torch.arange(len(self.tokens)).split(self.batch_size)]

    def rows(self, rows: list[int]) -> Batch:
        """Return the batch of these rows of the captions table."""
        return self._batch(rows)

    def _batch(self, rows: list[int], text: Sequence[torch.Tensor] = ()) -> Batch:
        """Return the batch of these rows of the captions table, and of text without an image behind them."""
        tokens, embeddings = [*(self.tokens[row] for row in rows), *text], self.embeddings[self.image_of[rows]]
        input_ids = pad_sequence(tokens, batch_first=True)  # [B, T], padded with 0
        lengths = torch.tensor([len(ids) for ids in tokens])
        padding = torch.arange(input_ids.shape[1]) >= lengths.unsqueeze(1)  # [B, T]
        if text:
            embeddings = torch.cat([embeddings, self._no_image.expand(len(text), *embeddings.shape[1:])])
        return Batch(embeddings, input_ids, input_ids.masked_fill(padding, IGNORE))

    def _order(self, turn: int, size: int) -> list[int]:
        """Return the order of one epoch's captions, shuffled, not grouped by length, because that would group content.

        In the drawn world short captions are those of single objects: two epochs of batches grouped by length (in pools
        of 8) got 0.06 and 0.15 of the validation captions right, shuffled ones 0.96 and 0.94 (seeds 0, 1).
        turn: the epoch, or -1, -2, … for the first, second, … pass over the text without images.
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + turn)
        return torch.randperm(size, generator=generator).tolist()


def _longest(tokens: list[torch.Tensor]) -> list[int]:
    """Return the places of the captions by their length, the longest last."""
    return sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
