"""The original's defects one by one: each a context in which a right recipe trains, and captions, with it.

    with DEFECTS["double-softmax"]():
        run = train(config, captions, cache, out)

All were read in the published code of jmisilo/clip-gpt-captioning; what each costs is measured in notebook 07. They
live here, not as options of what they spoil: each replaces one function for as long as its context lasts.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from ..config import Config
from ..data.batches import Batch, CaptionBatches
from ..models.captioner import IGNORE, Captioner
from ..models.mapping import EncoderMapper
from ..training import loop as training
from ..training import optimizer as learner
from ..training.loss import Likelihood
from ..training.optimizer import lr_at
from ..training.packing import Packed, pack
from ..training.session import split_batches

AIMED_AT = 3e-3  # the original's learning rate, for everything


def softmax_twice(logits: torch.Tensor, wanted: torch.Tensor, **choices: Any) -> torch.Tensor:
    """A cross-entropy, which takes logits, of probabilities: it lies in the last nat below ln(e + V - 1), ever."""
    return F.cross_entropy(logits.softmax(dim=-1), wanted, **choices)


def double_softmax() -> AbstractContextManager:
    """The loss is that of a softmax of a softmax. Validation still measures the true one."""
    right = Likelihood.forward

    def forward(self: Likelihood, packed: Packed) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return right(self, packed)
        return softmax_twice(self.captioner.gpt2.lm_head(self.hidden(packed)).float(), packed.targets)

    return patch.object(Likelihood, "forward", forward)


def absolute_lr() -> AbstractContextManager:
    """The learning rate goes where a factor on it belongs: 3e-3 times 3e-3, so that 9e-6 is the peak of all."""

    def squared(step: int, total_steps: int, _peak: float, warmup: float) -> float:
        return AIMED_AT * lr_at(step, total_steps, AIMED_AT, warmup)

    return patch.object(learner, "lr_at", squared)


def mix_images(mapper: EncoderMapper, embedding: torch.Tensor) -> torch.Tensor:
    """The prefixes [B, P, E] of a batch [B, D] that is read as one sequence of B tokens, in training and only there."""
    encoded = mapper.encoder(embedding) if mapper.training else mapper.encoder(embedding.unsqueeze(1)).squeeze(1)
    return mapper.output(encoded).unflatten(1, (mapper.prefix_length, -1))


def mixed_images() -> AbstractContextManager:
    """In training, and only there, the images of a batch attend to each other."""
    return patch.object(EncoderMapper, "forward", mix_images)


class AddedTwice(nn.Embedding):
    """Position embeddings that were added to GPT-2's inputs by hand, before GPT-2 adds them."""

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(positions)


def double_wpe() -> AbstractContextManager:
    """Position embeddings count twice, in training as in writing."""
    right = Captioner.__init__

    @functools.wraps(right)
    def init(self: Captioner, *given: Any, **named: Any) -> None:
        right(self, *given, **named)
        self.gpt2.transformer.wpe.__class__ = AddedTwice

    return patch.object(Captioner, "__init__", init)


def bos_at_inference() -> AbstractContextManager:
    """The beginning-of-text token stands before the prefix when captions are written, and never in training."""
    right = Captioner.generate

    def generate(self: Captioner, *given: Any, **choices: Any) -> torch.Tensor:
        prefix, bos = self.prefix, self.gpt2.transformer.wte.weight[self.config.text_config.bos_token_id]  # [E]

        def behind_bos(*images: Any) -> torch.Tensor:
            behind = prefix(*images)
            return torch.cat([bos.to(behind.dtype).expand(len(behind), 1, -1), behind], dim=1)  # [B, 1+P, E]

        with patch.object(self, "prefix", behind_bos):
            return right(self, *given, **choices)

    return patch.object(Captioner, "generate", generate)


def first_token_lost() -> AbstractContextManager:
    """Nothing is learned about a caption's first token, the one that the prefix alone has to predict."""
    right = Likelihood.forward

    def forward(self: Likelihood, packed: Packed) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return right(self, packed)
        kept = ~torch.isin(packed.sources, packed.prefixes)
        return right(self, packed._replace(sources=packed.sources[kept], targets=packed.targets[kept]))

    return patch.object(Likelihood, "forward", forward)


def padding_learned() -> AbstractContextManager:
    """Captions are padded with end-of-text to the longest of their batch, and all of it counts in the loss."""

    def padded(batch: Batch, prefix_length: int) -> Packed:
        padding = batch.labels == IGNORE  # [B, T]
        end_of_text = batch.labels[0][~padding[0]][-1]
        ids = batch.input_ids.masked_fill(padding, end_of_text)
        return pack(batch._replace(input_ids=ids, labels=ids), prefix_length)

    return patch.object(learner, "pack", padded)


def split_by_rows() -> AbstractContextManager:
    """Captions, not images, are dealt to train, val and test: nearly every image judged by was trained on."""

    def by_rows(config: Config, captions: pd.DataFrame, split: str, *others: Any) -> CaptionBatches:
        dealt = np.random.default_rng(config.seed).permutation(captions.split.to_numpy())
        return split_batches(config, captions.assign(split=dealt), split, *others)

    return patch.object(training, "split_batches", by_rows)


ONE_BY_ONE: dict[str, Callable[[], AbstractContextManager]] = {
    "double-softmax": double_softmax,
    "absolute-lr": absolute_lr,
    "mixed-images": mixed_images,
    "double-wpe": double_wpe,
    "bos-at-inference": bos_at_inference,
    "first-token-lost": first_token_lost,
    "padding-learned": padding_learned,
    "split-by-rows": split_by_rows,
}


@contextmanager
def all_at_once() -> Iterator[None]:
    """Every one of them, as published."""
    with ExitStack() as stack:
        for defect in ONE_BY_ONE.values():  # each is made when those before it are at work, and goes around them
            stack.enter_context(defect())
        yield


DEFECTS: dict[str, Callable[[], AbstractContextManager]] = {
    "none": nullcontext, **ONE_BY_ONE, "all": all_at_once,
}  # fmt: skip
