"""The same training with one thing changed, over several seeds, in as many processes as the machine has room for."""

import io
import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from ..config import Config
from ..data.build_cache import DRAWN_CACHES, open_cache
from ..data.changes import PICTURES, differ, pictures_sha256
from ..data.dataset import Data
from ..data.embedding_cache import EmbeddingCache
from ..errors import NoRoomError, UserError
from ..runtime.files import only_one, read_text, write_text
from ..runtime.texts import shown
from .record import describe_call, read_record, record_file, write_record
from .trial import Failure, Trial, captions_sha256, read_result, run_in_process

RUNS = Path("runs/ablations")


def ablate(
    base: Config, vary: dict[str, list[Any]], data: Data, *, seeds: int, out: str | Path,
    cache: str | Path | None = None, jobs: int | None = None, command: str = "helpers.ablate, called from Python",
) -> pd.DataFrame:  # fmt: skip
    """Train every combination of the values in `vary` with every seed, and save one row per run in the CSV `out`.

    vary: values for fields of the config, `defect` and `train_images` (trial.py). cache: the folder of the embeddings,
    by default the drawn world's; another encoder or pooling than the base's gets a folder beside it. jobs: the number
    of runs at a time, each in a process of its own; by default one per card, or one per CPU core if there is no card.
    It changes no number. command: the command line, for the record beside the CSV (record.py).
    The runs are judged on validation images. Columns: the varied names, seed, and those of `run_trial`. A finished run
    is never repeated, even for another `out`, because each has a folder under RUNS.
    Raises UserError on a wrong value or if `out` holds another experiment, both before the first run, at the end if
    some of the runs failed, and at once if the disk is full.
    """
    if seeds < 1 or (jobs is not None and jobs < 1):
        raise UserError(f"seeds is {seeds} and jobs is {jobs}, but both must be at least 1")
    trials = {}  # by what is varied and the seed
    for seed in range(seeds):
        for values in itertools.product(*vary.values()):
            key = {**dict(zip(vary, values, strict=True)), "seed": seed}
            trial = Trial.of(base, key)
            trials[tuple(key.values())] = trial.within(data)
    out, identity = Path(out), captions_sha256(data)
    with only_one(out, "writing results", wait=False):
        fixed = _shared(out, base, vary, data=identity)
        columns = [*vary, "seed"]
        rows = _read_results(out, columns)
        done = {_as_text(row[name] for name in columns) for row in rows}
        folders = {key: RUNS / trial.name(identity) for key, trial in trials.items() if _as_text(key) not in done}
        caches: dict[tuple[str, str], EmbeddingCache] = {}
        for config in (trials[key].config for key in folders):
            if _eyes(config) not in caches:
                caches[_eyes(config)] = open_cache(data, config, _cache_of(config, base, cache))
        pictures = {eyes: pictures_sha256(found, data.image_names()) for eyes, found in caches.items()}
        arguments = {key: (trials[key], data, caches[_eyes(trials[key].config)].folder) for key in folders}
        failed, order = [], [_as_text(key) for key in trials]
        call = describe_call(command, threads=1)
        finished = [key for key in arguments if read_result(folders[key] / "result.json")]  # for another table
        to_run = {key: each for key, each in arguments.items() if key not in finished}
        with closing(_in_processes(to_run, folders, jobs)) as running:
            ended = itertools.chain(((key, None) for key in finished), running)
            for key, failure in tqdm(ended, total=len(arguments), desc="runs", unit="run"):
                result = read_result(folders[key] / "result.json")
                if result is None:
                    failure = failure or Failure(f"{folders[key] / 'result.json'} is damaged")
                elif differ(result.pop(PICTURES, None), pictures[_eyes(trials[key].config)]):
                    failure = Failure(f"{folders[key]} was trained on pictures that have changed since: remove it")
                if failure:
                    failed.append(_in_words(columns, key))
                    if failure.full:
                        raise NoRoomError(f"no space left on the disk of {RUNS}, at {failed[-1]}: no other run is "
                                          "begun; make room, and the same command goes on")  # fmt: skip
                    tqdm.write(shown(f"{failed[-1]}: {failure.reason}"), file=sys.stderr)
                    continue
                rows.append(dict(zip(columns, key, strict=True)) | result)
                rows.sort(key=lambda row: _place(order, _as_text(row[name] for name in columns)))
                there = {_as_text(row[name] for name in columns) for row in rows}
                trainings = {trial.name(identity): _in_words(columns, key)
                             for key, trial in trials.items() if _as_text(key) in there}  # fmt: skip
                seeds_there = {int(row["seed"]) for row in rows}
                write_record(out, call=call, seeds=seeds_there, trainings=trainings, **fixed)
                write_text(out, pd.DataFrame(rows).to_csv(index=False))
    if failed:
        raise UserError(f"{len(failed)} of {len(arguments)} runs failed ({'; '.join(failed)}): see above why; the same "
                        "command runs them again, and only them")  # fmt: skip
    return pd.read_csv(out)


def _eyes(config: Config) -> tuple[str, str]:
    """Return what the embeddings depend on."""
    return config.clip, config.pooling


def _cache_of(config: Config, base: Config, cache: str | Path | None) -> str | Path | None:
    """Return the folder of a config's embeddings: `cache` for those of the base, and one beside it for others."""
    if _eyes(config) == _eyes(base) or (cache is None and config.clip == base.clip):
        return cache
    other = [config.pooling] if config.clip == base.clip else [Path(config.clip).name, config.pooling]
    return "-".join([str(cache or DRAWN_CACHES[base.pooling]), *other])


def _in_processes(
    arguments: dict[tuple, tuple], folders: dict[tuple, Path], jobs: int | None
) -> Iterator[tuple[tuple, Failure | None]]:
    """Call `run_in_process` for each key, `jobs` at a time; yield each key as it ends, and its failure if it has one.

    A process that dies takes no other with it. If the caller stops, by an exception or Ctrl-C, all are ended; they
    save first, so the same command goes on from there.
    """
    cards, context = torch.cuda.device_count(), get_context("spawn")
    jobs = jobs or cards or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    waiting, running = list(arguments), {}  # running: by the process's sentinel, key, process, place and what it says
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                key, place = waiting.pop(0), min(set(range(jobs)) - {place for _, _, place, _ in running.values()})
                said, tell = context.Pipe(duplex=False)
                named = {"folder": folders[key], "card": place % cards if cards else None, "tell": tell}
                process = context.Process(target=run_in_process, args=arguments[key], kwargs=named, daemon=True)
                process.start()
                tell.close()
                running[process.sentinel] = key, process, place, said
            for sentinel in wait(list(running)):
                key, process, _, said = running.pop(sentinel)
                process.join()
                yield key, _failure(process.exitcode, said, folders[key] / "log.txt")
    finally:
        _end([process for _, process, _, _ in running.values()])


def _end(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _failure(status: int, said: Connection, log: Path) -> Failure | None:
    """Return why a process failed: by which signal, or what it said itself; None if it did not."""
    if status < 0:
        return Failure(f"ended by signal {-status}")
    try:
        reason, full = said.recv() if status else ("", False)
    except EOFError:
        reason, full = "it ended without a word", False
    finally:
        said.close()
    return Failure(f"{reason} (exit status {status}, see {log})", full) if status else None


def _in_words(columns: list[str], key: tuple) -> str:
    """Return a run's values: "mapper mlp, seed 0"."""
    return ", ".join(f"{name} {value}" for name, value in zip(columns, key, strict=True))


def _as_text(values: Any) -> tuple[str, ...]:
    return tuple(map(str, values))


def _place(order: list[tuple[str, ...]], key: tuple[str, ...]) -> int:
    """Return a row's place; rows of another call, with other values, come first and stay as they are."""
    return order.index(key) if key in order else -1


def _read_results(out: Path, columns: list[str]) -> list[dict[str, str]]:
    """Return the rows of the results so far, as text, so that they stay as they are. Raises UserError if damaged."""
    try:
        if not out.exists():
            return []
        table = pd.read_csv(io.StringIO(read_text(out)), dtype=str)
        if missing := [name for name in columns if name not in table]:
            raise ValueError(f"it has no column {missing[0]}")
        table.drop(columns=columns).astype(float)  # what was measured are numbers
        return table.to_dict("records")
    except (OSError, ValueError) as error:
        raise UserError(f"{out} is no table of results ({' '.join(str(error).split())}): move it away or name another "
                        "file; finished runs are not trained again") from error  # fmt: skip


def _shared(out: Path, base: Config, vary: dict[str, list[Any]], *, data: str) -> dict[str, Any]:
    """Return what all rows of `out` share, for its record: rows with other settings or captions must not be compared.

    Raises UserError if the record there says otherwise. A field that is younger than the record had its default.
    """
    settings = {name: value for name, value in base.to_dict().items() if name not in (*vary, "seed")}
    fixed = {"varied": list(vary), "settings": settings, "data_sha256": data}
    found = {name: value for name, value in read_record(out).items() if name in fixed}
    defaults = {name: value for name, value in Config().to_dict().items() if name in settings}
    if found and found | {"settings": defaults | found.get("settings", {})} != fixed:
        raise UserError(
            f"{out} holds results of another base config, of other captions or of an older version (see "
            f"{record_file(out)}): name another file"
        )
    return fixed
