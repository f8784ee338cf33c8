"""Models of real size with random weights, and batches with Flickr30k's caption lengths."""

import json
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config, GPT2LMHeadModel

from helpers.config import Config
from helpers.data.batches import IGNORE, Batch
from helpers.language.freezing import freeze
from helpers.models.captioner import Captioner
from helpers.models.captioner_config import CaptionerConfig

# Tokens of each of 147,450 captions of Flickr30k, end-of-text included: {length: captions}.
LENGTHS = Path(__file__).parent / "caption_lengths.json"
GPT2 = {
    "small": GPT2Config(),
    "medium": GPT2Config(n_embd=1024, n_layer=24, n_head=16),
    "tiny": GPT2Config(
        vocab_size=257, n_positions=96, n_embd=32, n_layer=2, n_head=2, bos_token_id=256, eos_token_id=256
    ),
}
CLIP = {  # the image encoder that goes with each: ViT-B/32, ViT-L/14, and a small one for pictures of 32 pixels
    "small": CLIPVisionConfig(),
    "medium": CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14
    ),
    "tiny": CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    ),
}


def width(size: str) -> int:
    """Return D, the width of an embedding."""
    return CLIP[size].hidden_size


def captioner(
    size: str = "small", *, mapper: str = "encoder", prefix: int = 4, freezing: str = "first-and-last",
    activation: str = "gelu_pytorch_tanh",
) -> Captioner:  # fmt: skip
    """Build a captioner in training mode. Its CLIP has one layer, because the embeddings come from a cache.

    activation: the one that `load_gpt2` sets; the baselines have "gelu_new", GPT-2's own name for the same function.
    """
    torch.manual_seed(0)
    vision = CLIPVisionConfig(hidden_size=width(size), num_hidden_layers=1, num_attention_heads=8)
    text = GPT2Config(**{**GPT2[size].to_dict(), "activation_function": activation})
    shapes = CaptionerConfig(vision_config=vision, text_config=text, mapper=mapper, prefix_length=prefix)
    made = Captioner(shapes, gpt2=GPT2LMHeadModel(text))
    freeze(made.gpt2, Config(freezing=freezing))
    return made.train()


def vision_tower(size: str = "small") -> CLIPVisionModel:
    """Build a frozen vision tower of CLIP's shapes."""
    torch.manual_seed(0)
    return CLIPVisionModel(CLIP[size]).eval().requires_grad_(False)


def caption_lengths(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw the lengths of that many captions, in tokens with end-of-text, as Flickr30k has them: int64 [count]."""
    known = {int(length): captions for length, captions in json.loads(LENGTHS.read_text()).items()}
    shares = torch.tensor(list(known.values())).double()
    return torch.tensor(list(known))[torch.multinomial(shares, count, True, generator=generator)]


class Batches:
    """An endless stream of random captions with real lengths, padded to the longest."""

    def __init__(self, size: str, captions: int, seed: int) -> None:
        self.size, self.captions, self.generator = size, captions, torch.Generator().manual_seed(seed)

    def __next__(self) -> Batch:
        lengths, words = caption_lengths(self.captions, self.generator), GPT2[self.size].vocab_size - 1
        ids = torch.randint(0, words, (self.captions, int(lengths.max())), generator=self.generator)
        padding = torch.arange(ids.shape[1]) >= lengths.unsqueeze(1)
        embeddings = torch.randn(self.captions, width(self.size), generator=self.generator)
        return Batch(embeddings, ids.masked_fill(padding, 0), ids.masked_fill(padding, IGNORE))


def batches(size: str = "small", captions: int = 64, seed: int = 1) -> Batches:
    """Return a stream of batches for a captioner of that size."""
    return Batches(size, captions, seed)
