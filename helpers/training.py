"""The training loop. Batch, dropout and learning rate are functions of the step, so a run can be cut anywhere."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tqdm import tqdm

from .accelerator import choose_accelerator
from .batches import CaptionBatches
from .captioner import Captioner
from .checkpoint import load_newest, save_checkpoint
from .config import Config
from .embeddings import EmbeddingCache
from .meter import Meter
from .plotting import plot_loss_and_lr, save_figure
from .preparation import identity, parameter_groups, split_batches
from .pretrained import load_clip
from .runs import Run, begin_run
from .schedule import lr_at
from .stopping import Stop, stop_on_signals
from .writer import CaptionWriter


def train(
    config: Config,
    captions: pd.DataFrame,
    cache: str | Path,
    out: str | Path,
    resume: bool = False,
    max_steps: int | None = None,
    max_hours: float | None = None,
    watch: Callable[[pd.DataFrame], None] | None = None,
) -> Run:
    """Train a captioner on the captions whose split is "train", and leave a run folder at `out`.

    captions: columns image_name, caption, split. cache: a folder that `build_cache` made with the config's CLIP.
    max_steps, max_hours: when this session saves and stops; the schedule stays that of the whole run. Ctrl-C and
    SIGTERM stop it likewise. watch: called with the history each time it has grown, for a figure to look at.
    Raises UserError where the pair, the cache, the run folder or its checkpoints do not fit.
    """
    stop = Stop(max_steps, max_hours)
    choice = choose_accelerator(config.precision)
    mixed_precision = "no" if choice.precision == "fp32" else choice.precision
    AcceleratorState._reset_state()  # or a second run in this process could not compute in another precision
    accelerator = Accelerator(cpu=choice.device.type == "cpu", mixed_precision=mixed_precision)
    main = accelerator.is_main_process
    say = functools.partial(tqdm.write, file=sys.stderr) if main else _say_nothing
    say(f"computing on {choice}")

    # The pieces: the frozen CLIP's embeddings, the captions in batches, the captioner and what of it trains.
    clip = load_clip(config.clip)
    embeddings = EmbeddingCache.open(cache, clip)
    writer = CaptionWriter.assemble(config, clip)
    captioner = writer.captioner
    batches, held_out = (split_batches(config, captions, split, embeddings, writer, say) for split in ("train", "val"))
    captioner.start_from(batches.embeddings)
    optimizer = torch.optim.AdamW(parameter_groups(captioner, config))

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
        if main and not run.captioner.exists():
            _leave_captioner(writer, run)
        if main and watch:
            watch(run.history())
        return run

    model, optimizer = accelerator.prepare(captioner, optimizer)
    if state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    trained = [parameter for parameter in captioner.parameters() if parameter.requires_grad]
    meter = Meter(accelerator, **state["meter"])

    model.train()
    with stop_on_signals(stop), tqdm(total=total, initial=start, desc="training", unit="step", disable=not main) as bar:
        for step in range(start + 1, total + 1):
            torch.manual_seed(_dropout_seed(config.seed, step, accelerator.process_index))
            for group in optimizer.param_groups:
                group["lr"] = lr_at(step - 1, total, group["peak"], config.warmup)
            batch = batches.at(step - 1)
            part, weight = batch.part(accelerator.process_index, accelerator.num_processes)
            part = part.to(accelerator.device)
            loss = model(part.input_ids, embeddings=part.embeddings, labels=part.labels).loss * weight
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(trained, config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()

            meter.add(loss, len(batch.input_ids))
            stop.steps += 1
            stopping = _agreed(accelerator, stop.reason())
            evaluating = step % config.eval_every == 0 or step == total
            if evaluating or step % config.log_every == 0:
                row = {"step": step, "epoch": round(step / batches.steps_per_epoch, 4), **meter.read()}
                row |= {group["rate"]: group["lr"] for group in optimizer.param_groups}
                row["val_loss"] = validation_loss(captioner, held_out) if evaluating else None
                row["elapsed_seconds"] = round(state["elapsed"] + stop.seconds, 2)
                bar.set_postfix(loss=f"{row['loss']:.3f}", captions_per_s=f"{row['captions_per_second']:.0f}")
                if main:
                    run.append(row)
                    if watch:
                        watch(run.history())
            if main and step == total:  # before its checkpoint, so that a run with the last checkpoint is whole
                _leave_captioner(writer, run)
            if evaluating or stopping:
                scaler = accelerator.scaler.state_dict() if accelerator.scaler else None
                record = {"elapsed": state["elapsed"] + stop.seconds, "meter": meter.state(), "scaler": scaler}
                if main:
                    keep = config.keep_checkpoints
                    save_checkpoint(run.checkpoints, step, captioner, optimizer.optimizer, record, keep)
            bar.update()
            if stopping and step < total:
                if main:
                    _leave_captioner(writer, run)
                say(f"stopped after step {step} of {total}, because {stopping}; --resume goes on from here")
                break
    accelerator.wait_for_everyone()
    return run


@torch.no_grad()
def validation_loss(captioner: Captioner, batches: CaptionBatches) -> float:
    """Mean loss over every caption token of `batches`, in nats a token. Leaves the captioner as it found it."""
    was_training = captioner.training
    captioner.eval()
    loss, targets = 0.0, 0
    for rows in batches.in_order():
        batch = batches.rows(rows)
        output = captioner(**batch.to(captioner.device)._asdict())
        loss += output.loss.item() * batch.targets
        targets += batch.targets
    captioner.train(was_training)
    return loss / targets


def _leave_captioner(writer: CaptionWriter, run: Run) -> None:
    """The captioner as it is now, and the figure of how it came about."""
    writer.captioner.eval()
    writer.save(run.captioner)
    save_figure(plot_loss_and_lr(run.history()), run.figure)


def _agreed(accelerator: Accelerator, reason: str | None) -> str | None:
    """Why to stop now, the same answer in every process: one that went on alone would wait for the others forever."""
    if accelerator.num_processes == 1:
        return reason
    if reason:
        accelerator.set_trigger()
    return (reason or "another process was asked to") if accelerator.check_trigger() else None


def _dropout_seed(seed: int, step: int, process: int) -> int:
    return (seed * 1_000_003 + step) * 1_009 + process


def _say_nothing(_text: str) -> None:
    """What the processes beside the first one say."""
