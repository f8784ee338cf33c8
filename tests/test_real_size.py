"""The architectures of CLIP ViT-B/32 and GPT-2 at real size, on real photographs, with random weights.

`make test-real` sets REAL_SIZE=1 and adds tests that take minutes: batches of 64, the shapes of the preset `large`, and
those of `modern` with five language models. It prints the seconds and the memory of each command.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from real_size import LANGUAGE_MODELS, write_clip, write_language_model, write_siglip

from helpers.captions.read import read_captions
from helpers.data.build_cache import build_cache
from helpers.models.loading import load_encoder, load_gpt2

FULL = pytest.mark.skipif("REAL_SIZE" not in os.environ, reason="takes minutes: run `make test-real`")


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
    return write_language_model(tmp_path_factory.mktemp("real") / "gpt2", tokenizers)


def test_real_photos_are_cached(base_clip, shared_data, tmp_path):
    sample = shared_data / "flickr30k-sample"
    captions, left_out = read_captions(sample / "results.csv")
    names = list(captions.image_name.unique()[:16])
    clip = load_encoder(base_clip)
    cache = build_cache(tmp_path, sample / "flickr30k_images", names, clip=clip)
    assert left_out.empty
    assert (cache.image_names, cache.width) == (names, 768)
    assert len(cache.rows(names).unique(dim=0)) == 16


def test_the_real_gpt2_tokenizer(base_gpt2):
    gpt2, tokenizer = load_gpt2(base_gpt2)
    assert (len(tokenizer), gpt2.config.vocab_size, tokenizer.eos_token_id) == (50_257, 50_257, 50_256)
    assert tokenizer("A dog runs across the grass .")["input_ids"] == [32, 3290, 4539, 1973, 262, 8701, 764]


@pytest.fixture(scope="module")
def few_photos(shared_data, tmp_path_factory) -> list[str]:
    """Return options for 30 training photos and 2 each for validation and test, with the sample's own splits."""
    sample = shared_data / "flickr30k-sample"
    captions, _ = read_captions(sample / "results.csv")
    splits = pd.read_csv(sample / "splits.csv")
    names = pd.concat([splits[splits.split == split].head(n) for split, n in (("train", 30), ("val", 2), ("test", 2))])
    file = tmp_path_factory.mktemp("few") / "captions.csv"
    captions[captions.image_name.isin(names.image_name)].to_csv(file, index=False)
    photos = sample / "flickr30k_images"
    return ["--images", str(photos), "--captions", str(file), "--splits", str(sample / "splits.csv")]


def command(*arguments: object) -> str:
    """Run a command as a user does and return its output. Fail if it or a command before it used 12 GB or more."""
    words = [sys.executable, "-m", "helpers", *map(str, arguments)]
    threads = {} if "REAL_SIZE" in os.environ else {"OMP_NUM_THREADS": "1"}  # other tests run beside this one
    begun = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | threads)
    assert done.returncode == 0, done.stderr[-2000:]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9  # Linux gives it in KiB
    print(f"\n{arguments[0]}: {time.perf_counter() - begun:.0f} s, at most {peak:.1f} GB so far")
    assert peak < 12, f"{peak:.1f} GB"
    return done.stdout


@pytest.mark.parametrize(("batch_size", "steps"), [(8, 1), pytest.param(64, 3, marks=FULL)])
def test_the_whole_road(base_clip, base_gpt2, few_photos, shared_data, tmp_path, batch_size, steps):
    photo = next((shared_data / "flickr30k-sample" / "full_size").iterdir())
    whole_road(few_photos, photo, tmp_path, "--preset", "small", "--clip", base_clip, "--gpt2", base_gpt2,
               "--batch-size", batch_size, steps=steps)  # fmt: skip


@FULL
@pytest.mark.parametrize("name", [name for name in LANGUAGE_MODELS if not name.startswith("gpt2")])
def test_the_whole_road_of_other_language_models(few_photos, shared_data, tokenizers, tmp_path, name):
    """Run the preset `modern` with each language model: SigLIP 2, LoRA, bfloat16, batches of 64."""
    photo = next((shared_data / "flickr30k-sample" / "full_size").iterdir())
    clip, gpt2 = write_siglip(tmp_path / "clip"), write_language_model(tmp_path / "language", tokenizers, name)
    whole_road(few_photos, photo, tmp_path, "--preset", "modern", "--clip", clip, "--gpt2", gpt2, steps=3)


def whole_road(few_photos: list[str], photo: Path, tmp_path: Path, *options: object, steps: int) -> None:
    """Run embed, train, resume, predict and evaluate. Random weights write nonsense; only completion is tested."""
    run, cache = tmp_path / "run", tmp_path / "cache"
    command("embed", *few_photos[:4], "--clip", options[options.index("--clip") + 1], "--out", cache)
    train = ["train", *options, *few_photos, "--cache", cache, "--out", run, "--max-steps", steps]
    command(*train)
    command(*train, "--resume")
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == [
        f"step-{steps:08d}", f"step-{2 * steps:08d}",
    ]  # fmt: skip
    assert command("predict", "-C", run / "captioner", "-I", photo, "-R", tmp_path / "results").strip()
    assert (tmp_path / "results" / f"{photo.stem}.png").exists()
    command("evaluate", "--captioner", run / "captioner", *few_photos, "--out", tmp_path / "scores")
    assert len(pd.read_csv(tmp_path / "scores" / "captions.csv")) == 2


@FULL
def test_a_training_step_of_the_large_preset(tokenizers, few_photos, tmp_path):
    clip = write_clip(tmp_path / "clip", tokenizers, "openai/clip-vit-large-patch14")
    gpt2 = write_language_model(tmp_path / "gpt2", tokenizers, "gpt2-medium")
    command("train", "--preset", "large", *few_photos, "--clip", clip, "--gpt2", gpt2, "--out", tmp_path / "run",
            "--max-steps", 1)  # fmt: skip
    assert (tmp_path / "run" / "captioner" / "model.safetensors").exists()
