"""A look inside a captioner: the words near its prefix, its attention for each word, the probability of each."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.batches import caption_tokens
from ..models.writer import CaptionWriter

END = "⏎"  # shown in place of the end-of-text token
TOGETHER = 32  # captions whose logits [T, V] are in memory at a time


@torch.no_grad()
def prefix_words(
    writer: CaptionWriter, embeddings: torch.Tensor, number: int = 3
) -> list[list[list[tuple[str, float]]]]:
    """Return the tokens nearest to each prefix vector, by cosine to the token embeddings.

    embeddings: [B, D] or [B, S, D]. Returns B lists of P lists of `number` pairs (token, cosine), nearest first.
    """
    captioner, tokenizer = writer.captioner, writer.tokenizer
    prefix = F.normalize(captioner.prefix(embeddings.to(captioner.device)).float(), dim=-1)  # [B, P, E]
    vocabulary = F.normalize(captioner.gpt2.get_input_embeddings().weight.float(), dim=-1)  # [V, E]
    cosines, ids = (prefix @ vocabulary.T).topk(number, dim=-1)  # [B, P, number]
    return [
        [
            [(_shown(tokenizer, [token]), cosine) for token, cosine in zip(*slot, strict=True)]
            for slot in zip(*rows, strict=True)
        ]
        for rows in zip(ids.tolist(), cosines.tolist(), strict=True)
    ]


@torch.no_grad()
def attention_by_head(
    writer: CaptionWriter, embedding: torch.Tensor, caption: str
) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Return the W words of a caption, its end included, the attention for each word, and uniform attention.

    embedding: [1, D] or [1, S, D]. The attention is float32 [L, H, W, P+1], for each block and head: to each of the P
    prefix vectors, and, in the last column, to all the words before together; these sum to 1. It is read at the
    position whose output is the word, and averaged over the word's tokens. Uniform attention is float32 [W, P+1]: what
    they would get if each position that the word can look at got the same.
    """
    captioner, tokenizer = writer.captioner, writer.tokenizer
    ((ids,), _) = caption_tokens(tokenizer, [caption], captioner.longest_caption)
    prefix = captioner.prefix(embedding.to(captioner.device))  # [1, P, E]
    tokens = captioner.gpt2.get_input_embeddings()(ids.to(captioner.device)).unsqueeze(0)  # [1, T, E]
    inputs = torch.cat([prefix.to(tokens.dtype), tokens], dim=1)  # [1, P+T, E]
    with _eager(captioner.gpt2):
        output = captioner.gpt2.base_model(inputs_embeds=inputs, output_attentions=True, use_cache=False)
    width = prefix.shape[1]
    shares = torch.cat(output.attentions)[:, :, width - 1 : -1].float().cpu()  # [L, H, T, P+T]
    before = shares[..., width:].sum(dim=-1, keepdim=True)  # [L, H, T, 1]
    attention = torch.cat([shares[..., :width], before], dim=-1)  # [L, H, T, P+1]
    seen = torch.arange(len(ids)).unsqueeze(1)  # [T, 1], the tokens before
    uniform = torch.cat([torch.ones(len(ids), width), seen], dim=1) / (width + seen)  # [T, P+1]
    words = words_of(tokenizer, ids.tolist())
    return (
        [word for word, _ in words],
        torch.stack([attention[:, :, places].mean(dim=2) for _, places in words], dim=2),
        torch.stack([uniform[places].mean(dim=0) for _, places in words]),
    )


def word_confidence(
    writer: CaptionWriter, embeddings: torch.Tensor, written: Sequence[str]
) -> list[list[tuple[str, float]]]:
    """Return the words of each caption, its end included, each with the captioner's probability of it there.

    embeddings: [N, D] or [N, S, D], one for each of the N captions. The probability of a word, 0 to 1, is the product
    of its tokens' probabilities.
    """
    return [
        [(word, nats[places].sum().exp().item()) for word, places in words_of(writer.tokenizer, ids.tolist())]
        for ids, nats in token_log_probabilities(writer, embeddings, written)
    ]


@torch.no_grad()
def token_log_probabilities(
    writer: CaptionWriter, embeddings: torch.Tensor, written: Sequence[str]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the token ids of each caption, int64 [T] with its end, and the log-probability of each, float32 [T].

    embeddings: [N, D] or [N, S, D], one for each of the N captions.
    """
    captioner = writer.captioner
    ids, _ = caption_tokens(writer.tokenizer, list(written), captioner.longest_caption)
    rows = []
    for start in range(0, len(ids), TOGETHER):
        some = ids[start : start + TOGETHER]
        padded = pad_sequence(some, batch_first=True).to(captioner.device)  # [B, T]
        logits = captioner(padded, embeddings[start : start + TOGETHER].to(captioner.device)).logits  # [B, T, V]
        logs = logits.float().log_softmax(dim=-1).gather(2, padded.unsqueeze(2)).squeeze(2).cpu()  # [B, T]
        rows += [(tokens, row[: len(tokens)]) for tokens, row in zip(some, logs, strict=True)]
    return rows


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
def _eager(gpt2: PreTrainedModel) -> Iterator[None]:
    """Compute attention step by step within the block, because fused kernels do not return its weights."""
    usual = gpt2.config._attn_implementation
    gpt2.set_attn_implementation("eager")
    try:
        yield
    finally:
        gpt2.set_attn_implementation(usual)
