"""Models of real size with random weights, and batches with Flickr30k's caption lengths."""

import json
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config, GPT2LMHeadModel

from helpers.data.batches import Batch
from helpers.models.captioner import IGNORE, Captioner, CaptionerConfig
from helpers.models.freezing import freeze

# Tokens of each of 147,450 captions of Flickr30k, end-of-text included: {length: captions}.
LENGTHS = Path(__file__).parent / "caption_lengths.json"
GPT2 = {
    "small": GPT2Config(),
    "medium": GPT2Config(n_embd=1024, n_layer=24, n_head=16),
}
WIDTH = {"small": 768, "medium": 1024}  # of the embeddings, as CLIP ViT-B/32 and ViT-L/14 give them


def captioner(
    size: str = "small", mapper: str = "encoder", prefix: int = 4, freezing: str = "first-and-last",
    activation: str = "gelu_pytorch_tanh",
) -> Captioner:  # fmt: skip
    """A captioner in training mode. Its CLIP has one layer, since the embeddings come from a cache.

    activation: as `load_gpt2` sets it; the baselines have "gelu_new", GPT-2's own name for the same function.
    """
    torch.manual_seed(0)
    vision = CLIPVisionConfig(hidden_size=WIDTH[size], num_hidden_layers=1, num_attention_heads=8)
    shapes = GPT2Config(**{**GPT2[size].to_dict(), "activation_function": activation})
    made = Captioner(CaptionerConfig(vision, shapes, mapper, prefix), gpt2=GPT2LMHeadModel(shapes))
    freeze(made.gpt2, freezing)
    return made.train()


def batches(size: str = "small", captions: int = 64, seed: int = 1) -> "Batches":
    return Batches(WIDTH[size], captions, seed)


class Batches:
    """An endless stream of random captions with real lengths, padded to the longest."""

    def __init__(self, width: int, captions: int, seed: int) -> None:
        lengths = {int(length): count for length, count in json.loads(LENGTHS.read_text()).items()}
        self.lengths, self.shares = torch.tensor(list(lengths)), torch.tensor(list(lengths.values())).double()
        self.width, self.captions, self.generator = width, captions, torch.Generator().manual_seed(seed)

    def __next__(self) -> Batch:
        chosen = self.lengths[torch.multinomial(self.shares, self.captions, True, generator=self.generator)]
        ids = torch.randint(0, 50_256, (self.captions, int(chosen.max())), generator=self.generator)
        padding = torch.arange(ids.shape[1]) >= chosen.unsqueeze(1)
        embeddings = torch.randn(self.captions, self.width, generator=self.generator)
        return Batch(embeddings, ids.masked_fill(padding, 0), ids.masked_fill(padding, IGNORE))


def vision_tower() -> CLIPVisionModel:
    """CLIP ViT-B/32's shapes."""
    torch.manual_seed(0)
    return CLIPVisionModel(CLIPVisionConfig()).eval().requires_grad_(False)
