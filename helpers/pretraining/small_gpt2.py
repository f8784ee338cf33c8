"""A small GPT-2 and its byte-level BPE, trained from scratch on captions, as ordinary transformers objects."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from tqdm.auto import trange
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from ..training.optimizer import lr_at

END_OF_TEXT = "<|endoftext|>"
BLOCK = 96  # tokens in a row of training text, and the longest text the model reads: caption and prefix together


def train_tokenizer(captions: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """GPT-2's kind of tokenizer: byte-level BPE, so any text has ids, and `<|endoftext|>` the only special token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        captions,
        trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, model_max_length=BLOCK
    )


def build_gpt2(vocabulary: int, end_of_text: int, width: int, layers: int, dropout: float) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary, n_positions=BLOCK, n_embd=width, n_layer=layers, n_head=width // 32,
            bos_token_id=end_of_text, eos_token_id=end_of_text,
            embd_pdrop=dropout, resid_pdrop=dropout, attn_pdrop=dropout,
        )
    )  # fmt: skip


def train_gpt2(
    gpt2: GPT2LMHeadModel, texts: list[list[int]], steps: int, batch: int, peak: float, generator: torch.Generator
) -> list[float]:
    """Train on the texts, packed one after another as GPT-2's own were; return the loss of every step.

    Each text follows an end-of-text and the rows of a batch begin anywhere, so captions are learned at all positions.
    """
    end_of_text = gpt2.config.eos_token_id
    optimizer = torch.optim.AdamW(gpt2.parameters(), weight_decay=0.01, betas=(0.9, 0.98))
    losses: list[float] = []
    gpt2.train()
    stream, position = torch.empty(0, dtype=torch.long), 0
    for step in (bar := trange(steps, desc="language model", unit="step")):
        if position + batch * BLOCK > len(stream):
            order = torch.randperm(len(texts), generator=generator).tolist()
            again = torch.tensor([token for i in order for token in (end_of_text, *texts[i])])
            repeats = -(-batch * BLOCK // len(again))  # more than one only where there is very little text
            stream, position = torch.cat([stream[position:], again.repeat(repeats)]), 0
        rows = stream[position : position + batch * BLOCK].view(batch, BLOCK)  # [B, BLOCK]
        position += batch * BLOCK
        loss = _next_token_loss(gpt2, rows)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, steps, peak, warmup=0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(gpt2.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    gpt2.eval()
    return losses


@torch.no_grad()
def nll_per_token(gpt2: GPT2LMHeadModel, texts: list[list[int]], batch: int = 64) -> float:
    """Mean negative log-likelihood in nats of the tokens of captions and their end-of-text, each caption by itself."""
    end_of_text, total, tokens = gpt2.config.eos_token_id, 0.0, 0
    rows = [[end_of_text, *text[: BLOCK - 2], end_of_text] for text in texts]
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        longest = max(len(row) for row in part)
        ids = torch.tensor([row + [-100] * (longest - len(row)) for row in part])  # [B, T]
        logits = gpt2(ids.clamp_min(0)).logits[:, :-1]  # [B, T-1, V]
        total += F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=-100, reduction="sum").item()
        tokens += sum(len(row) - 1 for row in part)
    return total / tokens


def _next_token_loss(gpt2: GPT2LMHeadModel, rows: torch.Tensor) -> torch.Tensor:
    logits = gpt2(rows[:, :-1]).logits  # [B, BLOCK-1, V]
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
