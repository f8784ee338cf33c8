"""Fixtures that all tests share: a tiny pair in the hub's layout, and the real data if it lies beside the checkout."""

import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # also after a test has loaded a large model: runs must have the same bits

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPConfig, CLIPModel, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from helpers.config import Config
from helpers.data.build_cache import open_cache
from helpers.data.dataset import Data, open_data
from helpers.data.embedding_cache import EmbeddingCache
from helpers.data.scenes import draw_world
from helpers.encoders.processor import CLIPImageProcessor
from helpers.models.writer import CaptionWriter
from helpers.presets import preset
from helpers.training.loop import train
from helpers.training.run import Run

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos and captions, which are not part of the repository."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real photos and captions are not beside this checkout")
    return SHARED / "data"


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> Path:
    """A random CLIP in the hub's layout: both towers and the image processor. D = 32, pictures of 32 pixels."""
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
    """A random GPT-2 in the hub's layout, with a byte-level tokenizer: 256 bytes and the end of text. E = 32."""
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


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Data:
    """A drawn world of 60 pictures, split by image. Read only."""
    world = draw_world(tmp_path_factory.mktemp("world"), images=60)
    return open_data(world / "flickr30k_images", world / "results.csv")


@pytest.fixture(scope="session")
def cache(data, tmp_path_factory) -> EmbeddingCache:
    """The embeddings of that world from the tiny CLIP that ships with the project. Read only."""
    return open_cache(data, preset("tiny"), tmp_path_factory.mktemp("cache") / "embeddings")


@pytest.fixture(scope="session")
def patches(data, tmp_path_factory) -> EmbeddingCache:
    """The embeddings of the same pictures with one vector per patch. Read only."""
    return open_cache(data, preset("tiny").with_values(pooling="patches"), tmp_path_factory.mktemp("cache") / "patches")


@pytest.fixture(scope="session")
def config() -> Config:
    """The config of a run of 2 epochs with dropout, which takes a second or two."""
    return preset("tiny").with_values(mapper_layers=1, dropout=0.1, epochs=2, batch_size=32, eval_every=4, log_every=3)


@pytest.fixture(scope="session")
def finished(config, data, cache, tmp_path_factory) -> Run:
    """The run of `config`, never interrupted. Read only."""
    return train(config, data.captions, cache.folder, out=tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture(scope="session")
def writer(finished) -> CaptionWriter:
    """The captioner of the finished run. Read only."""
    return CaptionWriter.load(finished.captioner)
