"""A small GPT-2 and its byte-level tokenizer, trained from scratch on captions, as ordinary transformers objects."""

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch.nn import functional as F
from tqdm.auto import trange
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from ..runtime.device import choose_accelerator
from ..training.optimizer import lr_at
from .recipe import Recipe

END_OF_TEXT = "<|endoftext|>"
BLOCK = 96  # tokens in a row of training text, and in the longest input of the model: prefix and caption together


def train_tokenizer(captions: list[str], vocabulary: int, *, lowercase: bool = False) -> PreTrainedTokenizerFast:
    """Return a tokenizer of GPT-2's kind, with at most `vocabulary` tokens, learned from these captions.

    It is a byte-level BPE, so any text has ids. `<|endoftext|>` is the only special token. lowercase: turn text into
    lower case and drop a full stop at its end; and write "man's" where Flickr's captions have "man 's".
    """
    tokenizer = Tokenizer(models.BPE())
    joined = [decoders.Replace(f" {end}", end) for end in ("'s", "n't", ",")] if lowercase else []
    if lowercase:
        stop = normalizers.Replace(Regex(r"\s*\.\s*$"), "")
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), stop])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), *joined]) if joined else decoders.ByteLevel()
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


def build_gpt2(recipe: Recipe, *, vocabulary: int, end_of_text: int) -> GPT2LMHeadModel:
    """Return an untrained GPT-2 of the recipe's shape. vocabulary: tokens. end_of_text: the id of that token."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary, n_positions=BLOCK, n_embd=recipe.gpt2_width, n_layer=recipe.gpt2_layers,
            n_head=recipe.gpt2_width // 32, bos_token_id=end_of_text, eos_token_id=end_of_text,
            embd_pdrop=recipe.gpt2_dropout, resid_pdrop=recipe.gpt2_dropout, attn_pdrop=recipe.gpt2_dropout,
        )
    )  # fmt: skip


def train_gpt2(gpt2: GPT2LMHeadModel, texts: list[list[int]], recipe: Recipe) -> list[float]:
    """Train on the texts, given as token ids; return the loss of every step in nats per token.

    The texts are joined into one stream with an end-of-text before each, as GPT-2's own were. Rows are cut from it
    anywhere, so captions are learned at all positions.
    """
    generator, end_of_text = torch.Generator().manual_seed(recipe.seed), gpt2.config.eos_token_id
    batch_tokens = recipe.gpt2_batch * BLOCK
    optimizer = torch.optim.AdamW(gpt2.parameters(), weight_decay=0.01, betas=(0.9, 0.98))
    losses: list[float] = []
    choice = choose_accelerator(recipe.gpt2_precision)
    halved = torch.autocast("cpu", torch.bfloat16, enabled=(choice.device.type, choice.precision) == ("cpu", "bf16"))
    gpt2.train()
    stream, position = torch.empty(0, dtype=torch.long), 0
    for step in (bar := trange(recipe.gpt2_steps, desc="language model", unit="step")):
        if position + batch_tokens > len(stream):
            order = torch.randperm(len(texts), generator=generator).tolist()
            again = torch.tensor([token for i in order for token in (end_of_text, *texts[i])])
            repeats = -(-batch_tokens // len(again))  # more than one only if there is very little text
            stream, position = torch.cat([stream[position:], again.repeat(repeats)]), 0
        rows = stream[position : position + batch_tokens].view(-1, BLOCK)  # [B, BLOCK]
        position += batch_tokens
        with halved:
            loss = _next_token_loss(gpt2, rows)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, recipe.gpt2_steps, peak=recipe.gpt2_lr, warmup=0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(gpt2.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    gpt2.eval()
    return losses


@torch.no_grad()
def nll_per_token(gpt2: GPT2LMHeadModel, texts: list[list[int]], *, batch: int = 64) -> float:
    """Return the mean negative log-likelihood, in nats per token, of texts and the end-of-text that closes each.

    Each text is read alone, behind an end-of-text. batch: how many are read at once.
    """
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
    """Return the mean loss in nats per token of rows of token ids [B, BLOCK], as a scalar tensor."""
    logits = gpt2(rows[:, :-1]).logits  # [B, BLOCK-1, V]
    return F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())
