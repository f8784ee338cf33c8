"""Logits processors, which change GPT-2's scores while it writes: guidance, and the original's way to begin a caption.

Classifier-free guidance strengthens at each token what the picture adds to what GPT-2 would say without one:

    log p = log p(mean) + strength * (log p(true) - log p(mean)), normalised

"true" is the prediction behind the picture's prefix, "mean" the one behind the prefix of the training images' mean
embedding. A strength of 1 is the captioner as it is. Source: Ho and Salimans 2022 (arXiv:2207.12598), for language
models Sanchez et al. 2023 (arXiv:2306.17806).
"""

import torch
from transformers import GPT2LMHeadModel, LogitsProcessor, PreTrainedModel


class Guidance(LogitsProcessor):
    """Guide one call of a model's `generate` that begins with a prefix; transformers' own guidance needs token ids.

    The prediction behind the mean prefix depends on the caption's tokens alone, so it is computed once per distinct
    beginning of a caption, even if several rows or beams share it. Each beginning continues from the cache of the
    beginning that is one token shorter, so beams may be reordered.
    """

    def __init__(self, gpt2: PreTrainedModel, prefix: torch.Tensor, strength: float):
        """prefix: of the mean embedding, [1, P, E]. strength: above 0."""
        self.gpt2, self.prefix, self.strength = gpt2, prefix, strength

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Turn the scores [R, V] of the token behind input_ids, int64 [R, t], into guided log-probabilities [R, V]."""
        true, mean = scores.log_softmax(dim=-1), self._mean(input_ids)
        return (mean + self.strength * (true - mean)).log_softmax(dim=-1)

    def _mean(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities [R, V] behind the mean prefix."""
        if input_ids.shape[1] == 0:
            beginnings, row_of = input_ids[:1], torch.zeros(len(input_ids), dtype=torch.long, device=input_ids.device)
            output = self.gpt2(inputs_embeds=self.prefix, use_cache=True)
        else:
            beginnings, row_of = input_ids.unique(dim=0, return_inverse=True)  # [U, t], [R]
            parents = (beginnings[:, None, :-1] == self.beginnings).all(dim=2).int().argmax(dim=1)  # [U]
            self.cache.reorder_cache(parents)
            output = self.gpt2(beginnings[:, -1:], past_key_values=self.cache, use_cache=True)
        self.beginnings, self.cache = beginnings, output.past_key_values
        return output.logits[:, -1].float().log_softmax(dim=-1)[row_of]


class OriginalStart(LogitsProcessor):
    """The way the original begins a caption, for one call of GPT-2's `generate`.

    Its code adds the position embeddings by hand before GPT-2 adds them, which is in the converted weights: they are
    doubled. When a caption is written, it adds them in place, so from the second token on what stands before the
    caption has them once more. `later` is that; this processor scores the first token without it.
    """

    def __init__(self, gpt2: GPT2LMHeadModel, start: torch.Tensor):
        """start: the beginning-of-text token and the prefix, [B, 1+P, E]."""
        self.first = gpt2(inputs_embeds=start, use_cache=False, logits_to_keep=1).logits[:, -1].float()  # [B, V]
        self.later = with_positions_again(gpt2, start)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores [R, V] of the token behind input_ids, int64 [R, t], with the right ones for the first."""
        return scores if input_ids.shape[1] else self.first_scores(scores)

    def first_scores(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores of the first token, in the shape [R, V] and dtype of these."""
        return self.first.repeat_interleave(len(scores) // len(self.first), dim=0).to(scores)


def with_positions_again(gpt2: GPT2LMHeadModel, start: torch.Tensor) -> torch.Tensor:
    """Return [B, L, E] with the original's position embeddings added, which are half of the doubled ones."""
    return start + gpt2.transformer.wpe.weight[: start.shape[1]].to(start.dtype) / 2
