"""The training loop. Batch, dropout and learning rate are functions of the step, so a run can be cut anywhere."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator, notebook_launcher
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from tqdm import tqdm

from ..config import Config
from ..data.dataset import Data
from ..data.embedding_cache import EmbeddingCache
from ..errors import UserError
from ..models.loading import load_clip
from ..models.writer import CaptionWriter
from ..plots.base import save_figure
from ..plots.training import plot_loss_and_lr
from ..runtime.device import choose_accelerator
from .checkpoint import best_of, checkpoints, load_newest, save_checkpoint
from .estimate import rehearse
from .loss import Likelihood, validation_loss
from .optimizer import Learner, parameter_groups
from .run import Run, begin_run, identity
from .session import Logbook, Meter, Stop, make_accelerator, split_batches, stop_on_signals


def open_captioner(
    data: Data, config: Config, cache: EmbeddingCache, out: str | Path = "runs/tiny",
    watch: Callable[[pd.DataFrame], None] | None = None, finish: bool = True,
) -> tuple[Run, CaptionWriter]:  # fmt: skip
    """The captioner of the run at `out`, trained to its end on the first call and loaded on the next.

    finish: go on with a run that was stopped; without it, its captioner is taken as the last session left it.
    """
    run = Run(Path(out))
    if finish or not run.captioner.exists():
        run = train(config, data.captions, cache.folder, out, resume=True, watch=watch)
    return run, CaptionWriter.load(run.captioner, choose_accelerator("fp32").device)


def train(
    config: Config,
    captions: pd.DataFrame,
    cache: str | Path,
    out: str | Path,
    resume: bool = False,
    max_steps: int | None = None,
    max_hours: float | None = None,
    watch: Callable[[pd.DataFrame], None] | None = None,
    tracker: str | None = None,
) -> Run:
    """Train a captioner on the captions whose split is "train", and leave a run folder at `out`.

    captions: columns image_name, caption, split. cache: a folder that `build_cache` made with the config's CLIP.
    max_steps, max_hours: when this session saves and stops; the schedule stays that of the whole run. Ctrl-C and
    SIGTERM stop it likewise. watch: called with the history each time it has grown, for a figure to look at.
    tracker: one of Accelerate's, such as "tensorboard", which then gets each row of the history too.
    Raises UserError where the pair, the cache, the run folder or its checkpoints do not fit, or memory is too small.
    """
    stop = Stop(max_steps, max_hours)
    choice = choose_accelerator(config.precision)
    accelerator = make_accelerator(choice, tracker, out)
    main = accelerator.is_main_process
    say = functools.partial(tqdm.write, file=sys.stderr) if main else _say_nothing

    # The pieces: the frozen CLIP's embeddings, the captions in batches, the captioner and what of it trains.
    clip = load_clip(config.clip, pooling=config.pooling)
    embeddings = EmbeddingCache.open(cache, clip)
    writer = CaptionWriter.assemble(config, clip)
    captioner = writer.captioner
    batches, held_out = (split_batches(config, captions, split, embeddings, writer, say) for split in ("train", "val"))
    captioner.start_from(batches.typical_embeddings())
    optimizer = torch.optim.AdamW(parameter_groups(captioner, config), fused=True)

    # The run folder: a new one, or the newest whole checkpoint of an old one.
    with accelerator.main_process_first():
        run = begin_run(out, config, identity(batches, embeddings), resume or not main)
        state, passed_over = load_newest(run.checkpoints, captioner, optimizer)
        state = state or {"step": 0, "elapsed": 0.0, "meter": {}, "scaler": None}
        start, total = state["step"], config.epochs * batches.steps_per_epoch
        if main:
            run.rewind(start)
    accelerator.wait_for_everyone()
    for line in passed_over:
        say(line)
    if start == total:
        say(f"{run.folder} is finished: all {total} steps are done")
        if main:
            _finish(writer, run)
            if watch:
                watch(run.history())
        return run

    # The plan: a few steps, timed and undone.
    likelihood = Likelihood(captioner).train()
    model, optimizer = accelerator.prepare(likelihood, optimizer)
    if state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    learner = Learner(accelerator, model, optimizer, config, total)
    plan = rehearse(learner, likelihood, batches, held_out, start, str(choice))
    stop.reserve = plan.saving_seconds
    say(str(plan))
    if main:
        plan.write(run.plan_file)
        if tracker:
            accelerator.init_trackers("clipxgpt", config.to_dict())

    # The steps.
    meter = Meter(accelerator, **state["meter"])
    with stop_on_signals(stop), tqdm(total=total, initial=start, desc="training", unit="step", disable=not main) as bar:
        logbook = Logbook(run, accelerator, bar, watch)
        for step in range(start + 1, total + 1):
            batch = batches.at(step - 1)
            meter.add(learner.learn(batch, step), len(batch.input_ids))
            stop.steps += 1
            stopping = _agreed(accelerator, stop.reason())
            evaluating = step % config.eval_every == 0 or step == total
            val_loss = None
            if evaluating or step % config.log_every == 0:
                row = {"step": step, "epoch": round(step / batches.steps_per_epoch, 4), **meter.read()}
                row |= {group["rate"]: group["lr"] for group in optimizer.param_groups}
                row["val_loss"] = val_loss = validation_loss(likelihood, held_out) if evaluating else None
                logbook.write({**row, "elapsed_seconds": round(state["elapsed"] + stop.seconds, 2)})
            if evaluating:
                logbook.write_samples(step, writer, held_out)
            if main and step == total:  # before its checkpoint, so that a run with the last checkpoint is whole
                _leave_captioner(writer, run)
            if evaluating or stopping:
                scaler = accelerator.scaler.state_dict() if accelerator.scaler else None
                record = {"val_loss": val_loss, "elapsed": state["elapsed"] + stop.seconds}
                record |= {"meter": meter.state(), "scaler": scaler}
                if main:
                    keep = config.keep_checkpoints
                    save_checkpoint(run.checkpoints, step, captioner, optimizer.optimizer, record, keep)
            bar.update()
            if stopping and step < total:
                if main:
                    _leave_captioner(writer, run)
                say(f"stopped after step {step} of {total}, because {stopping}; {plan.remaining(step)}; "
                    "--resume goes on from here")  # fmt: skip
                break
    if main and step == total:
        _finish(writer, run)
    for each in accelerator.trackers:
        each.finish()
    accelerator.wait_for_everyone()
    return run


def _leave_captioner(writer: CaptionWriter, run: Run) -> None:
    """The captioner as it is now, and the figure of how it came about."""
    writer.captioner.eval()
    writer.save(run.captioner)
    save_figure(plot_loss_and_lr(run.history()), run.figure)


def _finish(writer: CaptionWriter, run: Run) -> None:
    """What a finished run has to leave and has not yet: its captioner, and the best one where that is another."""
    if not run.captioner.exists():
        _leave_captioner(writer, run)
    best = best_of(checkpoints(run.checkpoints))
    if best not in (None, checkpoints(run.checkpoints)[-1]) and not run.best_captioner.exists():
        writer.captioner.load_state_dict(load_file(best / "model.safetensors"), strict=False)
        writer.captioner.eval()
        writer.save(run.best_captioner)


def _agreed(accelerator: Accelerator, reason: str | None) -> str | None:
    """Why to stop now, the same answer in every process: one that went on alone would wait for the others forever."""
    if accelerator.num_processes == 1:
        return reason
    if reason:
        accelerator.set_trigger()
    return (reason or "another process was asked to") if accelerator.check_trigger() else None


def _say_nothing(_text: str) -> None:
    """What the processes beside the first one say."""


def train_on_all_cards(
    config: Config, captions: pd.DataFrame, cache: str | Path, out: str | Path, max_hours: float | None = None,
    watch: Callable[[pd.DataFrame], None] | None = None, processes: int | None = None,
) -> Run:  # fmt: skip
    """`train(..., resume=True)` in one process a card (two on Kaggle's "T4 x2"), or here where there is one or none.

    processes: how many, where it shall not be one a card. The processes are forked, so nothing here may have used a
    card before; where something has, training goes on here with one card and says so. Raises what `train` raises.
    """
    processes = processes or max(1, torch.cuda.device_count())
    if processes > 1 and torch.cuda.is_initialized():
        tqdm.write(f"one of {processes} cards is used, for this kernel has used one already: restart it to use all")
        processes = 1
    if processes == 1:
        return train(config, captions, cache, out, True, max_hours=max_hours, watch=watch)
    try:
        notebook_launcher(train, (config, captions, cache, out, True, None, max_hours, watch), num_processes=processes)
    except ChildFailedError as error:
        failure = error.get_first_failure()[1]
        kind, _, reason = str((failure.message or {}).get("message", "")).partition(": ")
        if kind != UserError.__name__:
            raise
        raise UserError(reason) from error
    return Run(Path(out))
