"""Swaps of prefix vectors, which tell what each is for: captions with one of them taken from another picture."""

from collections.abc import Sequence
from dataclasses import fields

import pandas as pd
import torch
from torch import nn

from ..data.scene_captions import Scene, read_caption
from ..models.writer import CaptionWriter


def captions_after_swap(writer: CaptionWriter, embeddings: torch.Tensor, place: int) -> list[str]:
    """Write a caption for each of N embeddings, its prefix vector number `place` (from 0) replaced by the next one's.

    embeddings: [N, D] or [N, S, D]. The next of the last is the first.
    """

    def swap(_module: nn.Module, _inputs: tuple[torch.Tensor, ...], prefix: torch.Tensor) -> torch.Tensor:
        changed = prefix.clone()  # [N, P, E]
        changed[:, place] = prefix[:, place].roll(-1, dims=0)
        return changed

    hook = writer.captioner.mapper.register_forward_hook(swap)
    try:
        return writer.write(embeddings, batch_size=len(embeddings))
    finally:
        hook.remove()


def facts_after_swap(swapped: Sequence[Sequence[str]], written: Sequence[str], scenes: Sequence[Scene]) -> pd.DataFrame:
    """Return how often a fact of the caption becomes the next picture's when one prefix vector does.

    swapped: for each of P prefix vectors the N captions of `captions_after_swap`. written: the N captions without a
    swap. scenes: of the N pictures. DataFrame with one row per prefix vector, numbered from 1, and these columns: for
    each fact the share of the captions, among those in which it was right and the next picture's is another one, that
    now state the next picture's; changed: the share of captions that are other ones; unreadable: the share that state
    no scene.
    """
    nexts, before = [*scenes[1:], *scenes[:1]], [read_caption(caption) for caption in written]
    rows = []
    for captions in swapped:
        after = [read_caption(caption) for caption in captions]
        readable = [each for each in zip(before, after, scenes, nexts, strict=True) if None not in each]
        row = {}
        for fact in (field.name for field in fields(Scene)):
            values = [[getattr(scene, fact) for scene in each] for each in readable]
            took = [now == other for was, now, true, other in values if was == true != other]
            row[fact] = sum(took) / len(took) if took else float("nan")
        row["changed"] = sum(a != b for a, b in zip(captions, written, strict=True)) / len(written)
        row["unreadable"] = sum(scene is None for scene in after) / len(after)
        rows.append(row)
    return pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="prefix vector"))
