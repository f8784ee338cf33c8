"""Captions packed end to end into a few rows, each behind its own prefix, with hardly any padding.

A batch of 64 real captions, padded to its longest, has 2.2 times the places that it needs; packed, 1.04 times.
A mask keeps attention within a caption, and every caption counts its positions from its own prefix on.
"""

from typing import NamedTuple

import torch

from ..data.batches import IGNORE, Batch

CAPTIONS_PER_ROW = 4  # more would pad less, but attention computes every pair of places in a row


class Packed(NamedTuple):
    """R rows of L places for B captions with N tokens in all; a "place" is a number from 0 to R*L - 1.

    embeddings: float32 [B, D] or [B, S, D]. tokens: int64 [R, L], what is read, 0 at prefixes and padding. positions:
    int64 [R, L], within the caption. caption_of: int64 [R, L], the caption a place belongs to, B for padding.
    prefixes: int64 [B * P], the places of the prefixes. sources, targets: int64 [N], the place whose hidden state
    predicts a token, and that token.
    """

    embeddings: torch.Tensor
    tokens: torch.Tensor
    positions: torch.Tensor
    caption_of: torch.Tensor
    prefixes: torch.Tensor
    sources: torch.Tensor
    targets: torch.Tensor

    def to(self, device: torch.device) -> "Packed":
        return Packed(*(tensor.to(device, non_blocking=True) for tensor in self))


def pack(batch: Batch, prefix_length: int) -> Packed:
    """Pack the captions of a padded batch without their padding.

    The end-of-text at a caption's end is a target only: nothing is predicted from it, so it is not read.
    """
    lengths = (batch.labels != IGNORE).sum(dim=1)  # [B], in tokens
    sizes = (prefix_length + lengths - 1).tolist()  # in places
    count = -(-len(sizes) // CAPTIONS_PER_ROW)
    length = max(max(sizes), -(-sum(sizes) // count))
    while (starts := _starts(sizes, count, length)) is None:
        length += 1

    tokens, positions = torch.zeros(count * length, dtype=torch.long), torch.zeros(count * length, dtype=torch.long)
    owners = torch.full((count * length,), len(sizes))
    first = torch.empty(len(sizes), dtype=torch.long)  # the place of each caption's first prefix vector
    for caption, (size, place) in enumerate(zip(sizes, starts, strict=True)):
        first[caption] = place
        tokens[place + prefix_length : place + size] = batch.input_ids[caption, : size - prefix_length]
        positions[place : place + size] = torch.arange(size)
        owners[place : place + size] = caption
    prefixes = (first.unsqueeze(1) + torch.arange(prefix_length)).flatten()
    caption_of, token_of = (batch.labels != IGNORE).nonzero(as_tuple=True)  # [N] each
    return Packed(
        batch.embeddings,
        *(places.view(count, length) for places in (tokens, positions, owners)),
        prefixes,
        first[caption_of] + prefix_length - 1 + token_of,
        batch.labels[caption_of, token_of],
    )


def _starts(sizes: list[int], count: int, length: int) -> list[int] | None:
    """Return the place where each caption starts in `count` rows of that length, or None if they do not fit.

    Longest first, each goes into the first row that has room for it (first-fit decreasing).
    """
    starts, filled = [0] * len(sizes), [0] * count
    for caption in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        row = next((row for row in range(count) if filled[row] + sizes[caption] <= length), None)
        if row is None:
            return None
        starts[caption] = row * length + filled[row]
        filled[row] += sizes[caption]
    return starts
