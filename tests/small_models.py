"""Captioners with a few thousand random weights, for tests."""

import torch
from transformers import CLIPVisionConfig, GPT2Config

from helpers.data.batches import IGNORE, Batch
from helpers.models.captioner import Captioner
from helpers.models.captioner_config import CaptionerConfig

END = 299  # end of text, the last id of the vocabulary


def random_captioner(seed: int = 0, dropout: float = 0.0, kind: type[Captioner] = Captioner, **config) -> Captioner:
    """Return a captioner with D = 32, E = 48, V = 300 and three GPT-2 blocks, in evaluation mode."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=16
    )
    text = GPT2Config(
        vocab_size=300, n_positions=64, n_embd=48, n_layer=3, n_head=4, bos_token_id=END, eos_token_id=END,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, initializer_range=0.2,
    )  # fmt: skip
    return kind(CaptionerConfig(vision, text, **{"mapper_layers": 2, "mapper_heads": 4, **config})).eval()


def learn(captioner: Captioner, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    """Train on random embeddings and captions, which `seed` determines."""
    torch.manual_seed(seed)
    for _ in range(steps):
        ids = torch.randint(0, END, (4, 6))
        captioner(ids, embeddings=torch.randn(4, 32), labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def random_batch(lengths: list[int], seed: int = 0) -> Batch:
    """Return captions of these lengths with random tokens and embeddings, D = 32."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 299, (len(lengths), max(lengths)), generator=generator)
    padding = torch.arange(max(lengths)) >= torch.tensor(lengths).unsqueeze(1)
    embeddings = torch.randn(len(lengths), 32, generator=generator)
    return Batch(embeddings, ids.masked_fill(padding, 0), ids.masked_fill(padding, IGNORE))
