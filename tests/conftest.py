"""What the tests share: a tiny pair in the hub's own layout, and the real data where a checkout has it beside it."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPConfig, CLIPModel, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from helpers.pretrained import CLIPImageProcessor

torch.set_num_threads(1)  # the models here are so small that threads would only wait for each other

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos and captions, which stay out of the repository."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real photos and captions are not beside this checkout")
    return SHARED / "data"


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> Path:
    """A random CLIP as the hub has one: both towers and the image processor. D = 32, pictures of 32 pixels."""
    folder = tmp_path_factory.mktemp("hub") / "clip"
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": 99, "bos_token_id": 97, "eos_token_id": 98, "max_position_embeddings": 16}
    torch.manual_seed(0)
    config = CLIPConfig(
        vision_config={**tower, "image_size": 32, "patch_size": 8}, text_config={**tower, **text}, projection_dim=16
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory) -> Path:
    """A random GPT-2 as the hub has one, with a byte-level tokenizer: 256 bytes and the end-of-text. E = 32."""
    folder = tmp_path_factory.mktemp("hub") / "gpt2"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, "<|endoftext|>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=257, n_positions=96, n_embd=32, n_layer=2, n_head=2, bos_token_id=256, eos_token_id=256)
    ).save_pretrained(folder)
    return folder
