"""The baselines of the benchmarks, written after the original project and after ClipCap.

The original (jmisilo/clip-gpt-captioning, 2b22c04 and its head alike): captions padded to the longest, logits at every
position, Adam over all parameters, one picture at a time in caching and captioning, no key-value cache, a pickled list
of tuples. After ClipCap (Mokady et al. 2021): the same padded step with an MLP, a prefix of 10 and all of GPT-2
trained; beam search that computes the whole text again for every token. Where the original computes something wrong
(notebook 04), the baseline computes the right thing, so that both sides of a comparison have the same loss.
"""

import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import CLIPVisionModel

from helpers.data.batches import IGNORE, Batch
from helpers.encoders.processor import CLIPImageProcessor
from helpers.models.captioner import Captioner
from helpers.models.mapping import MapperConfig


class MixingMapper(nn.Module):
    """A mapper like the original's, which reads `[B, D]` as one sequence: in training the images attend to each other.

    In evaluation it gets one picture at a time, as in the original. Like there, its layers normalise after each sum
    (post-norm) and have ReLU. Other than there, feed-forwards are twice the width, not four times, and the heads are
    the config's, not 16.
    """

    def __init__(self, config: MapperConfig, embedding_width: int, width: int):
        """Take the same arguments as the project's mapping modules."""
        super().__init__()
        layer = nn.TransformerEncoderLayer(embedding_width, config.mapper_heads, 2 * embedding_width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, config.mapper_layers, enable_nested_tensor=False)
        self.output = nn.Linear(embedding_width, config.prefix_length * width)
        self.prefix_length = config.prefix_length

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Map embeddings [B, D] to prefixes [B, P, E]."""
        encoded = self.encoder(embedding) if self.training else self.encoder(embedding.unsqueeze(1)).squeeze(1)
        return self.output(encoded).unflatten(1, (self.prefix_length, -1))


def padded_step(
    captioner: Captioner, optimizer: torch.optim.Optimizer | None = None, loss_of: Callable = F.cross_entropy
) -> Callable[[Batch], float]:
    """Return the original's training step; with an MLP as mapper and all of GPT-2 trained, one after ClipCap.

    The batch may be on another device than the captioner. optimizer: by default Adam over all parameters, the
    original's. The step returns the loss in nats per token.
    """
    captioner.gpt2.set_attn_implementation("eager")
    optimizer = optimizer or torch.optim.Adam(captioner.parameters(), lr=1e-4)

    def step(batch: Batch) -> float:
        batch = Batch(*(tensor.to(captioner.device) for tensor in batch))
        prefix = captioner.prefix(batch.embeddings)
        inputs = torch.cat([prefix, captioner.gpt2.transformer.wte(batch.input_ids)], dim=1)
        logits = captioner.gpt2(inputs_embeds=inputs, use_cache=False).logits  # [B, P+T, V]
        wanted = F.pad(batch.labels, (prefix.shape[1] - 1, 1), value=IGNORE)
        loss = loss_of(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORE)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(captioner.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


@torch.no_grad()
def greedy_loop(captioner: Captioner, embedding: torch.Tensor, tokens: int) -> list[int]:
    """Return the token ids of one picture's caption; the whole text is computed again for each token."""
    inputs, written = captioner.prefix(embedding), []
    for _ in range(tokens):
        token = captioner.gpt2(inputs_embeds=inputs, use_cache=False).logits[:, -1].argmax(dim=-1)
        written.append(token.item())
        inputs = torch.cat([inputs, captioner.gpt2.transformer.wte(token).unsqueeze(1)], dim=1)
    return written


@torch.no_grad()
def beam_loop(captioner: Captioner, embedding: torch.Tensor, tokens: int, *, beams: int = 5) -> torch.Tensor:
    """Return the token ids of one picture's best beam; the whole text is computed again for each token."""
    inputs, scores, written = captioner.prefix(embedding), None, None
    for _ in range(tokens):
        logits = captioner.gpt2(inputs_embeds=inputs, use_cache=False).logits[:, -1].log_softmax(dim=-1)
        if scores is None:
            scores, chosen = logits.topk(beams, dim=-1)
            scores, written = scores[0], chosen[0].unsqueeze(1)
            inputs = inputs.expand(beams, -1, -1)
        else:
            scores, flat = (scores.unsqueeze(1) + logits).flatten().topk(beams)
            source, token = flat // logits.shape[1], flat % logits.shape[1]
            written = torch.cat([written[source], token.unsqueeze(1)], dim=1)
            inputs = inputs[source]
        inputs = torch.cat([inputs, captioner.gpt2.transformer.wte(written[:, -1:])], dim=1)
    return written[scores.argmax()]


@torch.no_grad()
def embed_one(vision: CLIPVisionModel, processor: CLIPImageProcessor, path: Path) -> torch.Tensor:
    """Return the embedding of one picture file, [1, D]."""
    with Image.open(path) as picture:
        pixel_values = processor(images=picture.convert("RGB"), return_tensors="pt")["pixel_values"]
    return vision(pixel_values=pixel_values.to(vision.device)).pooler_output


def save_pickle(path: Path, names: list[str], embeddings: torch.Tensor) -> None:
    """Save the original's cache: a list of (name, embedding of one image, caption)."""
    rows = [(name, row.clone().unsqueeze(0), "A dog runs.") for name, row in zip(names, embeddings, strict=True)]
    path.write_bytes(pickle.dumps(rows))


def read_pickle(path: Path, wanted: list[int]) -> torch.Tensor:
    """Return the embeddings at these places of the list, [N, D]."""
    rows = pickle.loads(path.read_bytes())
    return torch.cat([rows[place][1] for place in wanted])
