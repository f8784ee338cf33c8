"""At real size: the architectures of CLIP ViT-B/32 and GPT-2 on real photographs, with random weights."""

from pathlib import Path

import pytest
import torch
from real_size import write_clip, write_gpt2

from helpers.embeddings import build_cache
from helpers.flickr import read_captions
from helpers.pretrained import load_clip, load_gpt2


@pytest.fixture(scope="module", autouse=True)
def all_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(torch.multiprocessing.cpu_count())
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizers(shared_data) -> Path:
    return shared_data.parent / "tokenizers"


@pytest.fixture(scope="module")
def base_clip(tmp_path_factory, tokenizers) -> Path:
    return write_clip(tmp_path_factory.mktemp("real") / "clip", tokenizers)


@pytest.fixture(scope="module")
def base_gpt2(tmp_path_factory, tokenizers) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("real") / "gpt2", tokenizers)


def test_real_photos_are_cached(base_clip, shared_data, tmp_path):
    sample = shared_data / "flickr30k-sample"
    captions, left_out = read_captions(sample / "results.csv")
    names = list(captions.image_name.unique()[:16])
    clip = load_clip(base_clip)
    cache = build_cache(tmp_path, sample / "flickr30k_images", names, clip)
    assert left_out.empty
    assert (cache.image_names, cache.width) == (names, 768)
    assert len(cache.rows(names).unique(dim=0)) == 16


def test_the_real_gpt2_tokenizer(base_gpt2):
    gpt2, tokenizer = load_gpt2(base_gpt2)
    assert (len(tokenizer), gpt2.config.vocab_size, tokenizer.eos_token_id) == (50_257, 50_257, 50_256)
    assert tokenizer("A dog runs across the grass .")["input_ids"] == [32, 3290, 4539, 1973, 262, 8701, 764]
