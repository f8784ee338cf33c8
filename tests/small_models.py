"""Captioners with a few thousand random weights, for tests."""

import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, CLIPVisionConfig, GPT2Config, PreTrainedConfig

from helpers.data.batches import IGNORE, Batch
from helpers.models.captioner import Captioner
from helpers.models.captioner_config import CaptionerConfig

END = 299  # end of text, the last id of the vocabulary
FAMILIES = {  # language models beside GPT-2
    "SmolLM2": {"model_type": "llama", "intermediate_size": 96, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "Qwen2": {"model_type": "qwen2", "intermediate_size": 96, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "Qwen3": {"model_type": "qwen3", "intermediate_size": 96, "num_key_value_heads": 2, "head_dim": 16},
    "OPT": {"model_type": "opt", "ffn_dim": 96, "word_embed_proj_dim": 48, "dropout": 0.0},
    "OPT-350m": {"model_type": "opt", "ffn_dim": 96, "word_embed_proj_dim": 32, "dropout": 0.0,
                 "do_layer_norm_before": False},
    "GPT-Neo": {"model_type": "gpt_neo", "attention_types": [[["global", "local", "local"], 1]], "window_size": 8,
                "num_layers": 3, "num_heads": 4,
                "embed_dropout": 0.0, "attention_dropout": 0.0, "resid_dropout": 0.0},
    "Pythia": {"model_type": "gpt_neox", "intermediate_size": 96, "tie_word_embeddings": False, "rotary_pct": 0.25},
    "Mistral": {"model_type": "mistral", "intermediate_size": 96, "num_key_value_heads": 2, "sliding_window": 48},
    "Gemma": {"model_type": "gemma3_text", "intermediate_size": 96, "num_key_value_heads": 2, "head_dim": 16,
              "sliding_window": 48},
}  # fmt: skip


def language_config(family: str, vocabulary: int = END + 1) -> PreTrainedConfig:
    """Return the config of a language model of a family in FAMILIES, with E = 48 and three blocks."""
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 256}
    return AutoConfig.for_model(
        vocab_size=vocabulary, bos_token_id=END, eos_token_id=END, initializer_range=0.2, **sizes | FAMILIES[family]
    )


def save_language_model(config: PreTrainedConfig, tokenizer: Path, folder: Path) -> Path:
    """Save a random language model of that config to `folder`, with the tokenizer in the folder `tokenizer`."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in tokenizer.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


def random_captioner(
    seed: int = 0, dropout: float = 0.0, kind: type[Captioner] = Captioner, family: str = "", **config
) -> Captioner:
    """Return a captioner with D = 32, E = 48, V = 300 and three blocks, of GPT-2 by default, in evaluation mode."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=16
    )
    text = GPT2Config(
        vocab_size=300, n_positions=64, n_embd=48, n_layer=3, n_head=4, bos_token_id=END, eos_token_id=END,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, initializer_range=0.2,
    )  # fmt: skip
    text = language_config(family) if family else text
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
