"""The real architectures with random weights in the hub's layout, to measure their cost offline."""

import json
import shutil
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    GPT2Tokenizer,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from helpers.encoders.processor import CLIPImageProcessor

LARGE_CLIP = {
    "vision_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                      "num_attention_heads": 16, "patch_size": 14, "projection_dim": 768},
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768},
    "projection_dim": 768,
}  # fmt: skip
CLIPS = {"openai/clip-vit-base-patch32": {}, "openai/clip-vit-large-patch14": LARGE_CLIP}
SIGLIP = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
          "image_size": 224, "patch_size": 16}  # the vision tower of google/siglip2-base-patch16-224  # fmt: skip
LANGUAGE_MODELS = {  # the settings of each config.json on the hub that are not the default
    "gpt2": {"model_type": "gpt2"},
    "gpt2-medium": {"model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16},
    "HuggingFaceTB/SmolLM2-135M": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "rope_theta": 100000, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0,
    },
    "Qwen/Qwen2.5-0.5B": {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768,
        "max_window_layers": 24, "rope_theta": 1000000.0, "tie_word_embeddings": True, "use_sliding_window": False,
        "sliding_window": 32768, "bos_token_id": 151643, "eos_token_id": 151643,
    },
    "facebook/opt-125m": {
        "model_type": "opt", "vocab_size": 50272, "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 2048, "word_embed_proj_dim": 768,
        "do_layer_norm_before": True, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
    },
    "EleutherAI/gpt-neo-125m": {
        "model_type": "gpt_neo", "vocab_size": 50257, "hidden_size": 768, "num_layers": 12, "num_heads": 12,
        "attention_types": [[["global", "local"], 6]], "window_size": 256, "max_position_embeddings": 2048,
        "activation_function": "gelu_new", "bos_token_id": 50256, "eos_token_id": 50256,
    },
    "EleutherAI/pythia-160m": {
        "model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 768, "intermediate_size": 3072,
        "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 2048, "rotary_pct": 0.25,
        "tie_word_embeddings": False, "use_parallel_residual": True, "bos_token_id": 0, "eos_token_id": 0,
    },
}  # fmt: skip


def write_clip(folder: Path, tokenizers: Path, name: str = "openai/clip-vit-base-patch32") -> Path:
    """Save a random CLIP of that shape, its image processor, and CLIP's tokenizer from `tokenizers`/clip."""
    torch.manual_seed(0)
    _write(CLIPModel(CLIPConfig(**CLIPS[name])), folder)
    CLIPImageProcessor().save_pretrained(folder)
    vocabulary, merges = (str(tokenizers / "clip" / part) for part in ("vocab.json", "merges.txt"))
    CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77).save_pretrained(folder)
    return folder


def write_siglip(folder: Path) -> Path:
    """Save a random vision tower of SigLIP 2 base, and its image processor."""
    torch.manual_seed(0)
    _write(SiglipVisionModel(SiglipVisionConfig(**SIGLIP)), folder)
    half = [0.5, 0.5, 0.5]
    CLIPImageProcessor(
        size={"height": 224, "width": 224}, do_center_crop=False, image_mean=half, image_std=half
    ).save_pretrained(folder)
    return folder


def write_language_model(folder: Path, tokenizers: Path, name: str = "gpt2") -> Path:
    """Save a random language model of that shape, and GPT-2's tokenizer from `tokenizers`/gpt2.

    The tokenizer is cut to the model's vocabulary. For OPT its end-of-text is </s>, for Qwen it begins no text.
    """
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**LANGUAGE_MODELS[name]))
    _write(model, folder)
    words = json.loads((tokenizers / "gpt2" / "vocab.json").read_text("utf-8"))
    rules = [line for line in (tokenizers / "gpt2" / "merges.txt").read_text("utf-8").splitlines() if line[:1] != "#"]
    kept = min(len(words), model.config.vocab_size) - 1  # one is for end-of-text
    end = "</s>" if model.config.model_type == "opt" else "<|endoftext|>"
    vocabulary = {word: number for word, number in words.items() if number < kept} | {end: kept}
    merges = [tuple(rule.split()) for rule in rules if "".join(rule.split()) in vocabulary]
    begin = None if model.config.model_type == "qwen2" else end
    GPT2Tokenizer(
        vocab=vocabulary, merges=merges, model_max_length=1024, bos_token=begin, eos_token=end, unk_token=end
    ).save_pretrained(folder)
    return folder


def _write(model: PreTrainedModel, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
