"""The original's bugs, one by one, so that what each costs can be measured.

    bug = BUGS["double-softmax"]
    run = train(config, bug.deal(captions, config.seed), cache, out=out, parts=bug.parts)
    writer = CaptionWriter.load(run.captioner, captioner_class=bug.parts.captioner)

All were read in the published code of jmisilo/clip-gpt-captioning, in two of its versions: 2b22c04 (November 2022),
whose README has the figures that this project starts from, and a6ebb0e, the head. Most bugs are in both; but
"end-never-learned" is 2b22c04's alone and "padding-learned" the head's, so "all" is the head. "double-wpe" is the part
of "triple-wpe" that training sees too. Notebook 07 measures them. A bug is a set of parts that takes the place of the
right ones, so nothing that it breaks knows about it.

Not bugs, but other than here: the original's encoder layers normalise after each sum (post-norm) and have ReLU and 16
heads; ours normalise before (pre-norm) and have GELU and 8 heads. What that changes has not been measured.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from ..data.batches import IGNORE, Batch
from ..errors import UserError
from ..models.captioner import Captioner
from ..models.decoding import LONGEST_BY_DEFAULT
from ..models.mapping import EncoderMapper
from ..training.loss import CaptionLoss
from ..training.optimizer import Parts, lr_at
from ..training.packing import Packed, pack

AIMED_AT = 3e-3  # the original's learning rate, for everything


def _deal_nothing(captions: pd.DataFrame, _seed: int) -> pd.DataFrame:
    return captions


@dataclass(frozen=True)
class Bug:
    """The parts of a training that carry a bug. deal: (captions, seed) -> the captions with the splits it trains on."""

    parts: Parts = field(default_factory=Parts)
    deal: Callable[[pd.DataFrame, int], pd.DataFrame] = _deal_nothing


class DoubleSoftmax(CaptionLoss):
    """Take a softmax before the cross-entropy, which takes another; validation still measures the true loss."""

    def forward(self, packed: Packed) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return super().forward(packed)
        return softmax_twice(F.linear(self.hidden(packed), self.weight).float(), packed.targets)


def softmax_twice(logits: torch.Tensor, targets: torch.Tensor, **choices: Any) -> torch.Tensor:
    """Return the cross-entropy of probabilities taken for logits, which stays within 1 nat below ln(e + V - 1)."""
    return F.cross_entropy(logits.softmax(dim=-1), targets, **choices)


class FirstTokenLost(CaptionLoss):
    """Learn nothing about a caption's first token, the one that the prefix alone has to predict."""

    def forward(self, packed: Packed) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return super().forward(packed)
        kept = ~torch.isin(packed.sources, packed.prefixes)
        return super().forward(packed._replace(sources=packed.sources[kept], targets=packed.targets[kept]))


class PublishedLoss(FirstTokenLost, DoubleSoftmax):
    """Both bugs of the loss."""


def squared_lr(step: int, total_steps: int, *, peak: float, warmup: float) -> float:
    """Put the learning rate where a factor on it belongs: 3e-3 times 3e-3, so every peak is 9e-6."""
    return AIMED_AT * lr_at(step, total_steps, peak=AIMED_AT, warmup=warmup)


def pack_padding(batch: Batch, prefix_length: int) -> Packed:
    """Pad captions with end-of-text to the longest of their batch, and count all of it in the loss."""
    padding = batch.labels == IGNORE  # [B, T]
    end_of_text = batch.labels[0][~padding[0]][-1]
    ids = batch.input_ids.masked_fill(padding, end_of_text)
    return pack(batch._replace(input_ids=ids, labels=ids), prefix_length)


def pack_without_end(batch: Batch, prefix_length: int) -> Packed:
    """Ignore end-of-text, which is also the token that pads, in the loss: where a caption ends is never learned."""
    packed = pack(batch, prefix_length)
    end_of_text = batch.labels[0][batch.labels[0] != IGNORE][-1]
    kept = packed.targets != end_of_text
    return packed._replace(sources=packed.sources[kept], targets=packed.targets[kept])


class MixedEncoder(EncoderMapper):
    """The encoder mapper, reading a batch [B, D] as one sequence of B tokens in training, and only then."""

    def __init__(self, mapper: EncoderMapper):
        """Take the layers of `mapper`."""
        nn.Module.__init__(self)
        self.prefix_length, self.encoder, self.output = mapper.prefix_length, mapper.encoder, mapper.output

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(embedding)
        return self.output(self.encoder(embedding)).unflatten(1, (self.prefix_length, -1))  # [B, P, E]


class MixedImages(Captioner):
    """In training, the images of a batch attend to each other."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.mapper = MixedEncoder(self.mapper)


class AddedTwice(nn.Embedding):
    """Position embeddings that were added to GPT-2's inputs by hand, before GPT-2 adds them."""

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(positions)


class DoubleWpe(Captioner):
    """Position embeddings count twice, in training and in writing."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        if self.gpt2.config.model_type != "gpt2":
            raise UserError("defect is one of GPT-2's own position embeddings, but the language model is of type "
                            f"{self.gpt2.config.model_type}: choose another defect, or a GPT-2")  # fmt: skip
        positions = self.gpt2.transformer.wpe
        self.gpt2.transformer.wpe = AddedTwice(*positions.weight.shape, _weight=positions.weight)


class TripleWpe(DoubleWpe):
    """As `DoubleWpe`, and in writing the prefix has its positions a third time from the second token on.

    The original adds positions to its inputs in place (`emb += pos_emb`). While it predicts the first token, those
    inputs are the prefix itself, which keeps them; for each later token they are a copy of it with the caption behind.
    """

    _first: torch.Tensor | None = None  # [B, 1], the first tokens, while the others are written

    def generation_prefix(self, *images: Any, **named: Any) -> torch.Tensor:
        prefix = super().generation_prefix(*images, **named)
        if self._first is None:
            return prefix
        transformer = self.gpt2.transformer
        changed = prefix + transformer.wpe.weight[: prefix.shape[1]].to(prefix.dtype)
        return torch.cat([changed, transformer.wte(self._first).to(prefix.dtype)], dim=1)  # [B, P+1, E]

    def generate(self, *images: Any, max_new_tokens: int = LONGEST_BY_DEFAULT, **named: Any) -> torch.Tensor:
        """Write the first token, then the others behind the changed prefix: int64 [B, at most max_new_tokens]."""
        first = super().generate(*images, max_new_tokens=1, **named)
        if max_new_tokens == 1:
            return first
        self._first = first
        try:
            others = super().generate(*images, max_new_tokens=max_new_tokens - 1, **named)
        finally:
            self._first = None
        end_of_text = self.config.text_config.eos_token_id
        return torch.cat([first, others.masked_fill(first == end_of_text, end_of_text)], dim=1)


class BosAtInference(Captioner):
    """The beginning-of-text token stands before the prefix when captions are written, and never in training."""

    def generation_prefix(self, *images: Any, **named: Any) -> torch.Tensor:
        prefix = super().generation_prefix(*images, **named)
        return torch.cat([self.beginning.to(prefix.dtype).expand(len(prefix), 1, -1), prefix], dim=1)  # [B, 1+P, E]


class PublishedCaptioner(MixedImages, TripleWpe, BosAtInference):
    """All bugs of the model."""


def deal_rows(captions: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Deal captions, not images, to the splits: nearly every image that judges was trained on."""
    return captions.assign(split=np.random.default_rng(seed).permutation(captions.split.to_numpy()))


BUGS: dict[str, Bug] = {
    "none": Bug(),
    "double-softmax": Bug(Parts(loss=DoubleSoftmax)),
    "absolute-lr": Bug(Parts(schedule=squared_lr)),
    "mixed-images": Bug(Parts(captioner=MixedImages)),
    "double-wpe": Bug(Parts(captioner=DoubleWpe)),
    "triple-wpe": Bug(Parts(captioner=TripleWpe)),
    "bos-at-inference": Bug(Parts(captioner=BosAtInference)),
    "first-token-lost": Bug(Parts(loss=FirstTokenLost)),
    "end-never-learned": Bug(Parts(pack=pack_without_end)),
    "padding-learned": Bug(Parts(pack=pack_padding)),
    "split-by-rows": Bug(deal=deal_rows),
    "all": Bug(Parts(PublishedCaptioner, PublishedLoss, squared_lr, pack_padding), deal_rows),
}
