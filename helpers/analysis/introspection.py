"""A look inside a captioner: the words near its prefix, its attention for each word, and how sure it is of each."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

from ..data.batches import caption_tokens
from ..models.writer import CaptionWriter

END = "⏎"  # shown in place of the end-of-text token
TOGETHER = 32  # captions whose logits [T, V] are in memory at a time


@torch.no_grad()
def prefix_words(
    writer: CaptionWriter, embeddings: torch.Tensor, number: int = 3
) -> list[list[list[tuple[str, float]]]]:
    """Return the tokens nearest to each prefix vector, by cosine to GPT-2's token embeddings.

    embeddings: [B, D] or [B, S, D]. Returns B lists of P lists of `number` pairs (token, cosine), nearest first.
    """
    captioner, tokenizer = writer.captioner, writer.tokenizer
    prefix = F.normalize(captioner.prefix(embeddings.to(captioner.device)).float(), dim=-1)  # [B, P, E]
    vocabulary = F.normalize(captioner.gpt2.transformer.wte.weight.float(), dim=-1)  # [V, E]
    cosines, ids = (prefix @ vocabulary.T).topk(number, dim=-1)  # [B, P, number]
    return [
        [
            [(_shown(tokenizer, [token]), cosine) for token, cosine in zip(*slot, strict=True)]
            for slot in zip(*rows, strict=True)
        ]
        for rows in zip(ids.tolist(), cosines.tolist(), strict=True)
    ]


@torch.no_grad()
def attention_to_prefix(writer: CaptionWriter, embedding: torch.Tensor, caption: str) -> tuple[list[str], torch.Tensor]:
    """Return the W words of a caption, its end included, and GPT-2's attention to each prefix vector for each word.

    embedding: [1, D] or [1, S, D]. The attention is float32 [W, P]: read at the position whose output is the word, and
    averaged over blocks, heads and the word's tokens. The rest of a row, up to 1, goes to the words before it.
    """
    captioner, tokenizer = writer.captioner, writer.tokenizer
    ((ids,), _) = caption_tokens(tokenizer, [caption], captioner.longest_caption)
    prefix = captioner.prefix(embedding.to(captioner.device))  # [1, P, E]
    tokens = captioner.gpt2.transformer.wte(ids.to(captioner.device)).unsqueeze(0)  # [1, T, E]
    inputs = torch.cat([prefix.to(tokens.dtype), tokens], dim=1)  # [1, P+T, E]
    with _eager(captioner.gpt2):
        output = captioner.gpt2.transformer(inputs_embeds=inputs, output_attentions=True, use_cache=False)
    attention = torch.stack(output.attentions).float().mean(dim=(0, 1, 2))  # [P+T, P+T]
    width = prefix.shape[1]
    to_prefix = attention[width - 1 : -1, :width].cpu()  # [T, P]
    words = words_of(tokenizer, ids.tolist())
    return [word for word, _ in words], torch.stack([to_prefix[places].mean(dim=0) for _, places in words])


@torch.no_grad()
def word_confidence(
    writer: CaptionWriter, embeddings: torch.Tensor, written: Sequence[str]
) -> list[list[tuple[str, float]]]:
    """Return the words of each caption, its end included, each with the captioner's probability of it there.

    embeddings: [N, D] or [N, S, D], one for each of the N captions. The probability of a word, 0 to 1, is the product
    of its tokens' probabilities.
    """
    captioner, tokenizer = writer.captioner, writer.tokenizer
    ids, _ = caption_tokens(tokenizer, list(written), captioner.longest_caption)
    sure = []
    for start in range(0, len(ids), TOGETHER):
        some = ids[start : start + TOGETHER]
        padded = pad_sequence(some, batch_first=True).to(captioner.device)  # [B, T]
        logits = captioner(padded, embeddings[start : start + TOGETHER].to(captioner.device)).logits  # [B, T, V]
        logs = logits.float().log_softmax(dim=-1).gather(2, padded.unsqueeze(2)).squeeze(2).cpu()  # [B, T]
        sure += [
            [(word, row[places].sum().exp().item()) for word, places in words_of(tokenizer, tokens.tolist())]
            for tokens, row in zip(some, logs, strict=True)
        ]
    return sure


def words_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Return the words that token ids [T] spell, each with the places of its tokens.

    A word begins at a token that starts with a space, and at the end-of-text.
    """
    places: list[list[int]] = []
    for place, token in enumerate(ids):
        if not places or token == tokenizer.eos_token_id or tokenizer.decode([token])[:1].isspace():
            places.append([])
        places[-1].append(place)
    return [(_shown(tokenizer, [ids[place] for place in word]), word) for word in places]


def _shown(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return END if ids == [tokenizer.eos_token_id] else tokenizer.decode(ids).strip()


@contextmanager
def _eager(gpt2: GPT2LMHeadModel) -> Iterator[None]:
    """Compute attention step by step within the block, because fused kernels do not return its weights."""
    usual = gpt2.config._attn_implementation
    gpt2.set_attn_implementation("eager")
    try:
        yield
    finally:
        gpt2.set_attn_implementation(usual)
