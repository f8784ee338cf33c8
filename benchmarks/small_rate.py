"""How right captions come with the number of steps at 9e-6, the original's learning rate: `make bench-small-rate`.

Each arm trains preset tiny on the drawn world at constant learning rates, on one CPU thread, and is judged on the
validation pictures each time its steps have doubled, and once between 3,000 and 6,000. Writes
notebooks/results/steps_at_9e-6.csv, which notebook 04 draws, and its record beside it as JSON. AdamW moves a weight by
about the learning rate per step, so arms at 10 and 100 times the rate stand in for 10 and 100 times the steps, as far
as they agree with 9e-6 where both were measured. Checkpoints lie in runs/small-rate, from which the command goes on.
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from benchmarks.arms import make_learner
from helpers.analysis.scene_errors import share_right
from helpers.config import Config
from helpers.data.batches import CaptionBatches
from helpers.data.build_cache import open_cache
from helpers.data.dataset import Data, open_drawn_world
from helpers.data.embedding_cache import EmbeddingCache
from helpers.experiments.record import describe_call, write_record
from helpers.experiments.trial import captions_sha256
from helpers.models.loading import load_encoder
from helpers.models.writer import CaptionWriter
from helpers.presets import preset
from helpers.runtime.files import write_text
from helpers.training.checkpoint import load_newest, save_checkpoint
from helpers.training.loss import CaptionLoss, validation_loss
from helpers.training.optimizer import Parts

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "notebooks" / "results" / "steps_at_9e-6.csv"
RUNS = ROOT / "runs" / "small-rate"
ARMS = {  # learning rates of mapping module and GPT-2, and the steps that they train
    (9e-6, 9e-6): 6000,
    (9e-5, 9e-5): 750,
    (9e-4, 9e-4): 750,
    (2e-4, 9e-6): 750,
}
LOOKS = (0, 12, 23, 46, 93, 186, 372, 750, 1500, 3000, 4500, 6000)  # steps done


def constant(_step: int, _total: int, *, peak: float, warmup: float) -> float:
    """Return the same learning rate at every step."""
    return peak


def train_seed(seed: int) -> None:
    """Train every arm with this seed, all to one look before any goes on to the next."""
    torch.set_num_threads(1)
    data, config = open_drawn_world(), preset("tiny").with_values(seed=seed)
    cache = open_cache(data, config)
    for steps in LOOKS:
        for (mapper_lr, gpt2_lr), most in ARMS.items():
            if steps <= most:
                advance(config.with_values(mapper_lr=mapper_lr, gpt2_lr=gpt2_lr), steps, data=data, cache=cache)


def advance(config: Config, steps: int, *, data: Data, cache: EmbeddingCache) -> None:
    """Train one arm from its newest checkpoint until `steps` are done, judge it, and add a row to its looks.csv.

    If it has been judged at as many steps or more, do nothing.
    """
    folder = RUNS / f"{config.mapper_lr:g}-{config.gpt2_lr:g}-{config.seed}"
    looks = read_looks(folder)
    if (looks.steps >= steps).any():
        return
    writer = CaptionWriter.assemble(config, load_encoder(config.clip))
    batches, held_out = (
        CaptionBatches(data.captions[data.captions.split == split], cache, writer.tokenizer,
                       batch_size=config.batch_size, seed=config.seed) for split in ("train", "val")
    )  # fmt: skip
    writer.captioner.prepare_for(batches.embeddings.typical())
    learner = make_learner(writer.captioner, config, total=steps, parts=Parts(schedule=constant))
    state, _ = load_newest(folder, writer.captioner, learner.optimizer.optimizer)
    state = state or {"step": 0, "minutes": 0.0}

    writer.captioner.train()
    begun = time.process_time()
    for step in range(state["step"], steps):
        learner.learn(batches.at(step), step)
    minutes = state["minutes"] + (time.process_time() - begun) / 60
    writer.captioner.eval()
    names = data.image_names("val")
    row = {
        "mapper_lr": config.mapper_lr, "gpt2_lr": config.gpt2_lr, "seed": config.seed, "steps": steps,
        "correct": round(share_right(names, writer.write(cache.rows(names), batch_size=512), data.facts), 4),
        "val_loss": round(validation_loss(CaptionLoss(writer.captioner), held_out), 4),
        "cpu_minutes": round(minutes, 2),
    }  # fmt: skip
    save_checkpoint(
        folder, writer.captioner, learner.optimizer.optimizer, step=steps, state={"minutes": minutes}, keep=1
    )
    write_text(folder / "looks.csv", pd.DataFrame([*looks.to_dict("records"), row]).to_csv(index=False))
    print(row, flush=True)


def read_looks(folder: Path) -> pd.DataFrame:
    """Return the rows so far of one arm with one seed."""
    return pd.read_csv(folder / "looks.csv") if (folder / "looks.csv").exists() else pd.DataFrame({"steps": []})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    open_cache(open_drawn_world(), preset("tiny"))  # made once, before the processes share it
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        list(pool.map(train_seed, range(options.seeds)))
    save(options.seeds)


def save(seeds: int) -> None:
    """Join the rows of all arms and seeds so far, and record beside them how they were made."""
    runs = [(*rates, seed) for rates in ARMS for seed in range(seeds)]
    names = {"{:g}-{:g}-{}".format(*run): "mapper_lr {:g}, gpt2_lr {:g}, seed {}".format(*run) for run in runs}
    rows = pd.concat([read_looks(RUNS / name) for name in names])
    write_text(RESULTS, rows.to_csv(index=False))
    given = ("mapper_lr", "gpt2_lr", "warmup", "epochs", "seed")
    settings = {name: value for name, value in preset("tiny").to_dict().items() if name not in given}
    write_record(
        RESULTS,
        call=describe_call(f"python -m benchmarks.small_rate --seeds {seeds}", threads=1),
        seeds=set(range(seeds)),
        trainings={f"right captions by steps, {name}": said for name, said in names.items()},
        varied=["mapper_lr", "gpt2_lr"],
        settings=settings | {"schedule": "constant learning rates, no warm-up"},
        data_sha256=captions_sha256(open_drawn_world()),
    )


if __name__ == "__main__":
    main()
