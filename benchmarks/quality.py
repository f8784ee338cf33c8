"""Time to quality: minutes of one CPU thread until 0.8 of the drawn world's validation captions have every fact right.

`python -m benchmarks.quality` trains each recipe with five seeds, as many at a time as there are cores, one thread
each, and writes notebooks/results/quality.csv: one row per look at the validation pictures (recipe, seed, minutes,
correct), and beside it the record. Rows that the file already has are not measured again. Minutes are the CPU time of
the training steps alone.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from benchmarks.arms import make_learner
from benchmarks.baselines import MixingMapper, padded_step
from helpers.analysis.scene_errors import share_right
from helpers.config import Config
from helpers.data.batches import Batch, CaptionBatches
from helpers.data.build_cache import open_cache
from helpers.data.dataset import Data, open_drawn_world
from helpers.experiments.original_bugs import AIMED_AT, softmax_twice
from helpers.experiments.record import describe_call, read_record, write_record
from helpers.experiments.trial import captions_sha256
from helpers.language.freezing import freeze
from helpers.models.loading import load_encoder
from helpers.models.writer import CaptionWriter
from helpers.presets import preset
from helpers.runtime.files import write_text
from helpers.training.optimizer import lr_at

RESULTS = Path(__file__).parents[1] / "notebooks" / "results" / "quality.csv"  # notebook 04 draws it
WANTED, SEEDS = 0.8, 5
MOST_MINUTES, MINUTES_BETWEEN_LOOKS = 2.0, 0.1  # of training, until a recipe is given up, and between looks
Step = Callable[[Batch, int], object]  # learns from a batch; the step's number counts from 0


def ours(writer: CaptionWriter, config: Config, batches: CaptionBatches) -> Step:
    """Return the trainer's own step with preset tiny."""
    captioner = writer.captioner
    captioner.prepare_for(batches.embeddings.typical())
    return make_learner(captioner, config, total=config.epochs * batches.steps_per_epoch).learn


def original(writer: CaptionWriter, config: Config, batches: CaptionBatches, *, peak: float = 9e-6) -> Step:
    """Return a step with softmax twice, a mapper that lets images attend to each other, and the original's schedule.

    All three are in 2b22c04 and in the head. peak: by default what the schedule reaches by the code of both versions.
    """
    captioner = writer.captioner
    captioner.mapper = MixingMapper(config, batches.embeddings.shape[-1], captioner.config.text_config.n_embd)
    optimizer = torch.optim.Adam(captioner.parameters(), lr=peak)
    step, total = padded_step(captioner, optimizer, softmax_twice), 150 * batches.steps_per_epoch
    return scheduled(step, optimizer, lambda number: lr_at(number, total, peak=peak))


def after_clipcap(
    writer: CaptionWriter, config: Config, batches: CaptionBatches, *, peak: float = 2e-5, warmup: int = 5000
) -> Step:
    """Return a step with an MLP, a prefix of 10, and all of GPT-2 trained by AdamW, after ClipCap's train.py.

    Ours all the same: the pair, the pooled embedding in place of the projected one, and a learned end of text.

    warmup: steps in which the learning rate rises.
    """
    captioner = writer.captioner
    freeze(captioner.gpt2, config)
    optimizer = torch.optim.AdamW([each for each in captioner.parameters() if each.requires_grad], lr=peak)
    step = padded_step(captioner, optimizer)
    return scheduled(step, optimizer, lambda number: peak * min(1.0, (number + 1) / warmup))


def scheduled(step: Callable[[Batch], float], optimizer: torch.optim.Optimizer, rate: Callable[[int], float]) -> Step:
    def learn(batch: Batch, number: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate(number)
        step(batch)

    return learn


AFTER_CLIPCAP = {"mapper": "mlp", "prefix_length": 10, "freezing": "full"}
RECIPES = {  # the step, and its changes to preset tiny
    "ours": (ours, {}),
    "the original's": (original, {}),
    "the original's, at 3e-3": (partial(original, peak=AIMED_AT), {}),
    "after ClipCap": (after_clipcap, AFTER_CLIPCAP | {"batch_size": 40}),
    "after ClipCap, all at 2e-4": (partial(after_clipcap, peak=preset("tiny").mapper_lr, warmup=100), AFTER_CLIPCAP),
    "ClipCap's design, our training": (ours, AFTER_CLIPCAP | {"mapper_lr": 7e-4}),  # an MLP's best rate (mapper.csv)
}


def learn(recipe: str, seed: int) -> pd.DataFrame:
    """Train one recipe with one seed until it is good enough or its minutes are over; return one row per look."""
    torch.set_num_threads(1)
    begin, values = RECIPES[recipe]
    config = preset("tiny").with_values(seed=seed, **values)
    data = open_drawn_world()
    cache, writer = open_cache(data, config), CaptionWriter.assemble(config, load_encoder(config.clip))
    train, names = data.captions[data.captions.split == "train"], data.image_names("val")
    batches = CaptionBatches(train, cache, writer.tokenizer, batch_size=config.batch_size, seed=seed)
    step, rows = begin(writer, config, batches), []
    epochs = config.epochs if begin is ours else None
    for minutes in training(step, writer, batches, epochs=epochs):
        writer.captioner.eval()
        correct = share_right(names, writer.write(cache.rows(names), batch_size=512), data.facts)
        rows.append({"recipe": recipe, "seed": seed, "minutes": round(minutes, 4), "correct": round(correct, 4)})
        if correct >= WANTED or minutes >= MOST_MINUTES:
            break
    return pd.DataFrame(rows)


def training(step: Step, writer: CaptionWriter, batches: CaptionBatches, *, epochs: int | None) -> Iterator[float]:
    """Train, and yield the minutes of training so far at each look and at the end. epochs: None for no end."""
    number, spent, seen = 0, 0.0, 0.0
    while epochs is None or number < epochs * batches.steps_per_epoch:
        writer.captioner.train()
        batch, begun = batches.at(number), time.process_time()
        step(batch, number)
        number, spent = number + 1, spent + (time.process_time() - begun) / 60
        if spent - seen >= MINUTES_BETWEEN_LOOKS:
            seen = spent
            yield spent
    yield spent


def shared(data: Data) -> dict[str, object]:
    """Return what the record says of the whole table: the preset, what each recipe changes, and the data."""
    recipes = {name: {"step": getattr(begin, "func", begin).__name__, **getattr(begin, "keywords", {}), **values}
               for name, (begin, values) in RECIPES.items()}  # fmt: skip
    looks = {"wanted": WANTED, "most_minutes": MOST_MINUTES, "minutes_between_looks": MINUTES_BETWEEN_LOOKS}
    settings = {"preset": preset("tiny").to_dict(), "recipes": recipes, **looks}
    return {"varied": ["recipe"], "settings": settings, "data_sha256": captions_sha256(data)}


def main() -> None:
    data = open_drawn_world()
    fixed, record = shared(data), read_record(RESULTS)
    if RESULTS.exists() and {name: record.get(name) for name in fixed} != fixed:
        sys.exit(f"{RESULTS} was measured with other settings or captions, or has no record: remove it first")
    results = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame(columns=["recipe", "seed"])
    done = set(zip(results.recipe, results.seed, strict=True))
    open_cache(data, preset("tiny"))  # made once, before the processes share it
    wanted = [(recipe, seed) for seed in range(SEEDS) for recipe in RECIPES if (recipe, seed) not in done]
    call = describe_call("python -m benchmarks.quality", threads=1)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(learn, *one) for one in wanted]):
            if future.exception():
                pool.shutdown(cancel_futures=True)  # or the rest would be trained before the error is seen
            rows = future.result()
            results = pd.concat([results, rows], ignore_index=True) if len(results) else rows
            trained = results[["recipe", "seed"]].drop_duplicates().values.tolist()
            names = {f"time to quality, {recipe}, {seed}": f"recipe {recipe}, seed {seed}" for recipe, seed in trained}
            write_record(RESULTS, call=call, seeds={seed for _, seed in trained}, trainings=names, **fixed)
            write_text(RESULTS, results.to_csv(index=False))
            print(rows.tail(1).to_string(index=False, header=False), flush=True)


if __name__ == "__main__":
    main()
