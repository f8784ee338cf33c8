"""The training loop. Batch, dropout and learning rate are functions of the step, so a run can be cut anywhere."""

import functools
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from ..config import Config
from ..data.changes import data_identity, picture_hashes
from ..data.dataset import Data
from ..data.embedding_cache import EmbeddingCache
from ..errors import UserError
from ..models.familiarity import ENOUGH
from ..models.writer import CaptionWriter
from ..runtime.device import choose_accelerator
from ..runtime.files import only_one
from .checkpoint import best_of, checkpoints, load_best, load_newest, not_written, save_checkpoint
from .estimate import check_room, rehearse
from .loss import validation_loss
from .optimizer import Learner, Parts, parameter_groups
from .run import Run, begin_run, other_pictures
from .session import Finite, Logbook, Meter, Stop, add_text, make_accelerator, split_batches, stop_on_signals

TRAINING = "training"  # the work that a run folder's lock names
Watch = Callable[[pd.DataFrame], None]  # gets the history each time it has grown, to draw a figure for example


def train(
    config: Config, captions: pd.DataFrame, cache: str | Path, *, out: str | Path, resume: bool = False,
    max_steps: int | None = None, max_hours: float | None = None, watch: Watch | None = None,
    tracker: str | None = None, parts: Parts | None = None, wait: bool = False,
) -> Run:  # fmt: skip
    """Train a captioner on the captions whose split is "train", and leave a run folder at `out`.

    captions: DataFrame[image_name, caption, split]. cache: a folder that `build_cache` made with the config's CLIP.
    resume: go on from the newest whole checkpoint. max_steps, max_hours: when this session saves and stops; the
    schedule stays that of the whole run. So do Ctrl-C, SIGTERM and SIGHUP. tracker: one of Accelerate's, such
    as "tensorboard", which gets each row of the history, too. parts: other parts than the usual ones, for experiments.
    Only one process may train into a run folder at a time; wait: wait until another one has ended.
    Raises UserError if the pair, the cache, the run folder or its checkpoints do not fit, if memory or the disk is too
    small, if another process trains into the folder, and at the first loss or gradient that is not finite.
    """
    lock = only_one(out, TRAINING, wait=wait) if os.environ.get("RANK", "0") == "0" else nullcontext()
    with lock:
        return _session(
            config, captions, cache, out=out, resume=resume, stop=Stop(max_steps, max_hours), watch=watch,
            tracker=tracker, parts=parts or Parts(),
        )  # fmt: skip


def _session(
    config: Config, captions: pd.DataFrame, cache: str | Path, *, out: str | Path, resume: bool, stop: Stop,
    watch: Watch | None, tracker: str | None, parts: Parts,
) -> Run:  # fmt: skip
    """Train for one session, as `train` says."""
    choice = choose_accelerator(config.precision)
    accelerator = make_accelerator(choice, tracker, out)
    main = accelerator.is_main_process
    say = functools.partial(tqdm.write, file=sys.stderr) if main else _say_nothing

    # The pieces: the frozen CLIP's embeddings, the captions in batches, the captioner and what of it trains.
    writer = CaptionWriter.assemble(config, captioner_class=parts.captioner)
    embeddings = EmbeddingCache.open(cache, writer.clip(config.start_from or config.clip))
    captioner = writer.captioner
    batches, held_out = (
        split_batches(captions, split, config, cache=embeddings, writer=writer, say=say) for split in ("train", "val")
    )
    if not config.start_from and len(batches.image_names) < 2:  # the spread of one is none
        raise UserError("1 picture to train on, but a training needs at least 2: give more photos")
    learned = picture_hashes(embeddings, batches.image_names).values()
    writer = replace(writer, trained_on=writer.trained_on.union(learned))
    typical = batches.embeddings.typical()
    if not config.start_from:
        captioner.prepare_for(typical)
    elif not captioner.know(typical):
        say(f"the {len(typical)} training pictures are unlike those that {config.start_from} was trained on, and too "
            f"few to become familiar: they are still called unlike the training; {ENOUGH} are enough")  # fmt: skip
    if config.text_share:
        add_text(batches, config, writer, captions=captions)
    optimizer = torch.optim.AdamW(parameter_groups(captioner, config), fused=True)

    # The run folder: a new one, or the newest whole checkpoint of an old one.
    with accelerator.main_process_first():
        identity = data_identity(batches, embeddings)
        run = begin_run(out, config, identity, resume=resume or not main)
        state, passed_over = load_newest(run.checkpoints, captioner, optimizer)
        state = {"step": 0, "elapsed": 0.0, "meter": {}, "scaler": None} | (state or {})
        start, total = state["step"], config.epochs * batches.steps_per_epoch
        if main:
            passed_over += run.rewind(start)
    accelerator.wait_for_everyone()
    if start > total:
        last = checkpoints(run.checkpoints)[-1]
        raise UserError(f"{last} is behind the last of the run's {total} steps: move it away")
    if other_pictures(run.folder, identity):
        passed_over.append(f"pictures of {run.folder} have changed since it began: it goes on with those of now")
    for line in passed_over:
        say(line)
    if start == total:
        say(f"{run.folder} is finished: all {total} steps are done")
        if main:
            _finish(writer, run, say=say)
            if watch:
                watch(run.history())
        return run

    # The plan: a few steps, timed and undone.
    loss = parts.loss(captioner).train()
    model, optimizer = accelerator.prepare(loss, optimizer)
    if state["scaler"] and accelerator.scaler:  # a run may go on in another precision
        accelerator.scaler.load_state_dict(state["scaler"])
    learner = Learner(accelerator, model, optimizer, config=config, total=total, parts=parts)
    plan = rehearse(learner, loss, batches=batches, held_out=held_out, done=start, computing_on=str(choice))
    stop.reserve = plan.saving_seconds
    say(str(plan))
    if main:
        check_room(run, plan, config)
        plan.save(run.plan_file)
        if tracker:
            accelerator.init_trackers("clipxgpt", config.to_dict())

    # The steps.
    meter, finite = Meter(accelerator, **state["meter"]), Finite(run, learner)
    shown = {} if main else {"disable": True}  # TQDM_DISABLE decides in the main process
    bar = tqdm(total=total, initial=start, desc="training", unit="step", **shown)
    with stop_on_signals(stop), bar:
        logbook = Logbook(run, accelerator, bar, watch=watch)
        for step in range(start, total):
            batch, done = batches.at(step), step + 1
            loss_of_step = learner.learn(batch, step)
            finite.add(done, loss_of_step)
            meter.add(loss_of_step, len(batch.input_ids))
            stop.steps += 1
            stopping = _agreed(accelerator, stop.reason())
            evaluating = done % config.eval_every == 0 or done == total
            val_loss = None
            if evaluating or stopping or done % config.log_every == 0:
                finite.check()
            if evaluating or done % config.log_every == 0:
                row = {"step": done, "epoch": round(done / batches.steps_per_epoch, 4), **meter.read()}
                row |= {group["rate"]: group["lr"] for group in optimizer.param_groups}
                row["val_loss"] = val_loss = validation_loss(loss, held_out) if evaluating else None
                finite.check_validation(val_loss)
                row["elapsed_seconds"] = round(state["elapsed"] + stop.seconds, 2)
                if evaluating:  # first, so that whoever watches the history finds them
                    logbook.record_samples(done, writer, held_out)
                logbook.record(row)
            if evaluating or stopping:
                scaler = accelerator.scaler.state_dict() if accelerator.scaler else None
                record = {"val_loss": val_loss, "elapsed": state["elapsed"] + stop.seconds}
                record |= {"meter": meter.state(), "scaler": scaler}
                if main:
                    save_checkpoint(run.checkpoints, captioner, optimizer.optimizer, step=done, state=record,
                                    keep=config.keep_checkpoints)  # fmt: skip
                    if stopping or done == total:  # after its checkpoint, from which it could be made again
                        _leave_captioner(writer, run)
            bar.update()
            if stopping and done < total:
                say(f"stopped after {done} of {total} steps, because {stopping}; {plan.remaining(done)}; "
                    "--resume goes on from here")  # fmt: skip
                break
    if main and done == total:
        _finish(writer, run, say=say)
    for each in accelerator.trackers:
        each.finish()
    accelerator.wait_for_everyone()
    return run


def train_or_load(
    config: Config, data: Data, cache: EmbeddingCache, *, out: str | Path = "runs/tiny", watch: Watch | None = None,
    finish: bool = True,
) -> tuple[Run, CaptionWriter]:  # fmt: skip
    """Return the run at `out` and its captioner: trained by the first call, which may take hours, then only loaded.

    finish: go on with a run that was stopped; without it, its captioner is taken as the last session left it.
    """
    run = Run(Path(out))
    if finish or not run.captioner.exists():
        run = train(config, data.captions, cache.folder, out=out, resume=True, watch=watch, wait=True)
    return run, CaptionWriter.load(run.captioner, device=choose_accelerator("fp32").device)


def _leave_captioner(writer: CaptionWriter, run: Run) -> None:
    """Save the captioner as it is now, and the figure of the training so far."""
    writer.captioner.eval()
    _save(writer, run.captioner)
    run.save_figure()


def _save(writer: CaptionWriter, folder: Path) -> None:
    try:
        writer.save(folder)
    except (OSError, SafetensorError) as error:
        size = sum(tensor.nbytes for tensor in writer.captioner.state_dict().values())
        rest = "its checkpoint stands; make room, and --resume writes it"
        raise not_written(error, "no captioner", folder.parent, size=size, rest=rest) from error


def _finish(writer: CaptionWriter, run: Run, say: Callable[[str], None]) -> None:
    """Save what a finished run still lacks: its captioner, and the best one if that is another."""
    if not _is_of(run.captioner, writer):  # a kill may have left that of an earlier session
        _leave_captioner(writer, run)
    best = best_of(checkpoints(run.checkpoints))
    if best not in (None, checkpoints(run.checkpoints)[-1]) and not run.best_captioner.exists():
        if wrong := load_best(best, writer.captioner):
            say(f"{wrong}, so there is no {run.best_captioner.name}")
            return
        writer.captioner.eval()
        _save(writer, run.best_captioner)


def _is_of(folder: Path, writer: CaptionWriter) -> bool:
    """Tell whether the captioner in `folder` is of the same step as this one: every step changes the mapping module."""
    try:
        with safe_open(folder / "model.safetensors", "pt") as file:
            return all(
                torch.equal(file.get_tensor(f"mapper.{name}"), tensor.cpu())
                for name, tensor in writer.captioner.mapper.state_dict().items()
            )
    except (OSError, SafetensorError):
        return False


def _agreed(accelerator: Accelerator, reason: str | None) -> str | None:
    """Return why to stop now, the same in every process: one that went on alone would wait for the others forever."""
    if accelerator.num_processes == 1:
        return reason
    if reason:
        accelerator.set_trigger()
    return (reason or "another process was asked to") if accelerator.check_trigger() else None


def _say_nothing(_text: str) -> None:
    """Take the place of `say` in all processes but the first."""
