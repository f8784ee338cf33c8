"""Save models that have learned nothing, as a baseline: `python -m benchmarks.untrained ENCODER GPT2 OUT`.

ENCODER: a folder of `clipxgpt convert`. GPT2: one of `clipxgpt pretrain --text`. OUT/encoder and OUT/gpt2 get models of
the same shape with random weights, and the same image processor and tokenizer.
"""

import sys
from pathlib import Path

import torch
from transformers import GPT2LMHeadModel

from helpers.encoders.vision import build_tower
from helpers.models.loading import load_encoder, load_gpt2


def main() -> None:
    """Save both models."""
    encoder, gpt2, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    torch.manual_seed(0)
    seeing, (writing, tokenizer) = load_encoder(encoder), load_gpt2(gpt2)
    for part in (build_tower(seeing.vision.config, "pooled"), seeing.processor):
        part.save_pretrained(out / "encoder")
    for part in (GPT2LMHeadModel(writing.config), tokenizer):
        part.save_pretrained(out / "gpt2")


if __name__ == "__main__":
    main()
