"""Each work as the baseline does it and as this project does it: `python -m benchmarks.arms WORK ARM` times one arm.

Ours is timed in float32 and in bfloat16 ("ours, bf16"), which some CPUs compute in hardware; the baselines are float32.
An arm runs in a process of its own, so that its peak memory is its own. It prints JSON: the seconds per item in each
repetition after the first; the peak of resident memory in GB, libraries included; and the largest growth of the
process's own memory, without the pages of mapped files, which the system takes back when it needs them.
"""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import baselines, models
from helpers.config import Config
from helpers.data.build_cache import build_cache
from helpers.data.embedding_cache import EmbeddingCache
from helpers.data.shards import Shard
from helpers.encoders.processor import CLIPImageProcessor
from helpers.encoders.vision import ImageEncoder
from helpers.models.captioner import Captioner
from helpers.runtime.device import PRECISIONS, Choice, keep_freed_memory
from helpers.training.loss import CaptionLoss
from helpers.training.optimizer import Learner, Parts, parameter_groups
from helpers.training.session import make_accelerator

TOKENS = 16  # per written caption
Arm = Callable[[], tuple[Callable[[], object], int]]  # sets up; returns the work and the number of its items


def our_step(size: str, *, captions: int = 64, prefix: int = 4, precision: str = "fp32", **changed: object) -> Arm:
    def arm():
        keep_freed_memory()  # as `choose_accelerator` does before any training, captioning or embedding
        captioner, stream = models.captioner(size, prefix=prefix, **changed), models.batches(size, captions)
        config = Config(mapper_lr=1e-4, gpt2_lr=1e-4, epochs=1, prefix_length=prefix, precision=precision)
        learner = make_learner(captioner, config, total=1000)
        return lambda: learner.learn(next(stream), 10), captions

    return arm


def make_learner(
    captioner: Captioner, config: Config, *, total: int, device: str = "cpu", parts: Parts | None = None
) -> Learner:
    """Return the trainer's own step on that device, in the config's precision. total: the steps of the schedule."""
    optimizer = torch.optim.AdamW(parameter_groups(captioner, config), fused=True)
    choice = Choice(torch.device(device), config.precision, "a benchmark")
    accelerator = make_accelerator(choice, tracker=None, folder=".")
    model, optimizer = accelerator.prepare(CaptionLoss(captioner).train(), optimizer)
    return Learner(accelerator, model, optimizer, config=config, total=total, parts=parts)


def padded_step(size: str, **changed: object) -> Arm:
    def arm():
        step = baselines.padded_step(models.captioner(size, activation="gelu_new", **changed))
        stream = models.batches(size)
        return lambda: step(next(stream)), 64

    return arm


def our_captions(beams: int, precision: str) -> Arm:
    def arm():
        keep_freed_memory()
        captioner, embeddings = models.captioner().eval().to(PRECISIONS[precision]), torch.randn(64, 768)
        captioner.generation_config.eos_token_id = None  # every caption gets all its tokens, as in the loops
        choices = {"num_beams": beams, "max_new_tokens": TOKENS, "do_sample": False}
        return lambda: captioner.generate(embeddings, **choices), 64

    return arm


def captions_in_a_loop(loop: Callable, pictures: int) -> Arm:
    def arm():
        captioner, embeddings = models.captioner(activation="gelu_new").eval(), torch.randn(pictures, 1, 768)
        return lambda: [loop(captioner, embedding, TOKENS) for embedding in embeddings], pictures

    return arm


def save_photos(folder: Path, count: int) -> list[str]:
    """Save JPEG files of 500 x 375 pixels, random clouds of color about as large as photos, and return their names."""
    rng, names = np.random.default_rng(0), [f"{number:03}.jpg" for number in range(count)]
    for name in names:
        small = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        small.resize((500, 375), Image.Resampling.BICUBIC).save(folder / name, quality=90)
    return names


def our_embeddings(precision: str) -> Arm:
    def arm():
        folder, vision = Path(tempfile.mkdtemp()), models.vision_tower().to(PRECISIONS[precision])
        names, clip = save_photos(folder, 256), ImageEncoder(vision, CLIPImageProcessor(), "random")
        return lambda: build_cache(tempfile.mkdtemp(), folder, names, clip=clip), len(names)

    return arm


def embeddings_in_a_loop() -> tuple[Callable[[], object], int]:
    folder, vision, processor = Path(tempfile.mkdtemp()), models.vision_tower(), CLIPImageProcessor()
    names = save_photos(folder, 64)
    return lambda: [baselines.embed_one(vision, processor, folder / name) for name in names], len(names)


ROWS, READ = 100_000, 10_000
NAMES = [f"{number:08}.jpg" for number in range(ROWS)]


def our_cache(rows: int = ROWS, read: int = READ) -> Arm:
    def arm():
        folder = _saved_elsewhere(_save_cache, NAMES[:rows])
        wanted = [NAMES[place] for place in _wanted(rows, read)]
        return lambda: EmbeddingCache.open(folder).rows(wanted), read

    return arm


def pickled_cache() -> tuple[Callable[[], object], int]:
    folder, wanted = _saved_elsewhere(_save_pickle, NAMES), _wanted(ROWS, READ)
    return lambda: baselines.read_pickle(folder / "cache.pkl", wanted), READ


def _wanted(rows: int, read: int) -> list[int]:
    return np.random.default_rng(0).permutation(rows)[:read].tolist()


def _saved_elsewhere(save: Callable[[Path, list[str]], None], names: list[str]) -> Path:
    """Return a folder that another process has filled, so that its memory is not counted here."""
    folder = Path(tempfile.mkdtemp())
    process = multiprocessing.get_context("fork").Process(target=save, args=(folder, names))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{save.__name__} failed")
    return folder


def _save_cache(folder: Path, names: list[str]) -> None:
    clip = ImageEncoder(models.vision_tower(), CLIPImageProcessor(), "random")
    (folder / "fingerprint.json").write_text(json.dumps(clip.fingerprint()))
    for number, start in enumerate(range(0, len(names), 512)):
        some = names[start : start + 512]
        rows = torch.randn(len(some), 768).half()
        Shard.of(rows, some, {}, [None] * len(some)).save(folder / f"shard-{number:05}.safetensors")


def _save_pickle(folder: Path, names: list[str]) -> None:
    baselines.save_pickle(folder / "cache.pkl", names, torch.randn(len(names), 768))


OURS = {"ours": "fp32", "ours, bf16": "bf16"}  # the precision of our arms


AFTER_CLIPCAP = {"mapper": "mlp", "prefix": 10, "freezing": "full"}


def in_both(make: Callable[..., Arm], *choices: object, **changed: object) -> dict[str, Arm]:
    return {name: make(*choices, precision=precision, **changed) for name, precision in OURS.items()}


WORKS: dict[str, dict[str, Arm]] = {
    "training step, GPT-2 small": {"baseline": padded_step("small"), **in_both(our_step, "small")},
    "training step, GPT-2 medium": {"baseline": padded_step("medium"), **in_both(our_step, "medium")},
    "training step, after ClipCap": {
        "baseline": padded_step("small", **AFTER_CLIPCAP),
        **in_both(our_step, "small"),  # our design: an encoder, a prefix of 4, 98 of 169 million weights trained
    },
    "training step, after ClipCap, same model": {
        "baseline": padded_step("small", **AFTER_CLIPCAP),
        **in_both(our_step, "small", **AFTER_CLIPCAP),
    },
    "greedy captions": {"baseline": captions_in_a_loop(baselines.greedy_loop, 4), **in_both(our_captions, 1)},
    "beam search, 5 beams": {"baseline": captions_in_a_loop(baselines.beam_loop, 2), **in_both(our_captions, 5)},
    "embedding photos": {"baseline": embeddings_in_a_loop, **in_both(our_embeddings)},
    "reading 10,000 of 100,000 rows": {"baseline": pickled_cache, "ours": our_cache()},
}


def main(name: str, arm: str, *numbers: str) -> None:
    repetitions, threads = map(int, numbers)
    torch.set_num_threads(threads)
    print(json.dumps(timed(WORKS[name][arm], repetitions)))


def timed(arm: Arm, repetitions: int) -> dict[str, Any]:
    """Return an arm's seconds per item and its memory, measured in this process."""
    work, items = arm()
    own, seconds = OwnMemory(), []
    for _ in range(repetitions + 1):  # the first warms up
        begun = time.perf_counter()
        work()
        seconds.append((time.perf_counter() - begun) / items)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"items": items, "seconds": seconds[1:], "peak_gb": peak / 1e9, "grown_gb": own.growth() / 1e9}


def in_a_process(module: str, *arguments: object, threads: int | None = None) -> dict[str, Any]:
    """Run `python -m benchmarks.MODULE ARGUMENTS` and return its last line, read as JSON.

    threads: the number of threads for PyTorch, by default its own choice or the module's.
    """
    words = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    env = os.environ if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env, cwd=Path(__file__).parents[1])
    if done.returncode:
        sys.exit(f"{' '.join(words[2:])}: {done.stderr[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])


class OwnMemory:
    """A watch on the memory that belongs to this process alone (Linux: RssAnon), read every 5 milliseconds."""

    def __init__(self) -> None:
        self.seen, self.done = [self.now()], threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def growth(self) -> int:
        """Stop watching; return the largest growth since the beginning, in bytes."""
        self.done.set()
        self.thread.join()
        return max(self.seen) - self.seen[0]

    @staticmethod
    def now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    def _watch(self) -> None:
        while not self.done.wait(0.005):
            self.seen.append(self.now())


if __name__ == "__main__":
    main(*sys.argv[1:])
