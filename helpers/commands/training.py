"""The commands that train: train, ablate, and notebooks, which trains on the way."""

import itertools
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import DEFECTS, VARIED_BESIDE, Config, check_value
from ..errors import UserError
from ..runtime.files import only_one
from ..runtime.model_folders import remember_inputs, remembered_inputs
from . import checks
from .messages import Validations, print_effects, print_next_steps, report_cache, report_left_out, report_splits
from .options import (
    CACHE,
    CAPTIONS,
    IMAGES,
    SPLITS,
    PresetName,
    chosen_config,
    decimal,
    resumed_config,
    whole,
    with_config,
    with_reading,
)

SESSION = "This session"


@with_config
@with_reading
def train(
    *,
    preset_name: PresetName,
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run.")],
    images: Annotated[Path | None, IMAGES] = None,
    captions: Annotated[Path | None, CAPTIONS] = None,
    splits: Annotated[Path | None, SPLITS] = None,
    reading: dict[str, Any],
    cache: Annotated[Path | None, CACHE] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", rich_help_panel=SESSION, help="Go on from the newest whole checkpoint of the run."),
    ] = False,
    max_hours: Annotated[
        float | None,
        typer.Option(
            "--max-hours", metavar="H", parser=decimal, rich_help_panel=SESSION,
            help="Save and stop after this many hours.",
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            "--max-steps", metavar="N", parser=whole, rich_help_panel=SESSION,
            help="Save and stop after this many steps.",
        ),
    ] = None,
    tracker: Annotated[
        str | None,
        typer.Option(
            "--tracker", metavar="NAME", rich_help_panel=SESSION,
            help="Record in tensorboard, wandb or another of Accelerate's trackers too.",
        ),
    ] = None,
    **values: Any,
) -> None:  # fmt: skip
    """Train a captioner, or go on with a run.

    Without photos the preset tiny trains on the drawn world, in minutes on a CPU. Ctrl-C saves and stops. With --resume
    a run goes on with its own config, photos and embeddings; what is given again must be the same.

    Examples:
      clipxgpt train --preset tiny --out runs/tiny
      clipxgpt train --preset small --images photos --captions captions.csv --epochs 10 --out runs/mine
    """
    config = resumed_config(out, preset_name, values) if resume else chosen_config(preset_name, values)
    checks.used(values, config)
    for name, value in (("max_hours", max_hours), ("max_steps", max_steps)):
        if value is not None:
            check_value(name, value, above=0)
    given = {"images": images, "captions": captions, "splits": splits, "cache": cache}
    if resume:
        given, reading = remembered_inputs(out, given, reading)
    images, captions, splits, cache = given.values()
    images, captions, splits = checks.photos_or_world(
        preset_name, images=images, captions=captions, splits=splits, reading=reading
    )
    checks.models(config)
    checks.run_folder(out, resume)
    from ..data.build_cache import DRAWN_CACHES, open_cache
    from ..data.dataset import open_data, open_drawn_world
    from ..training.kaggle import carry_over
    from ..training.loop import TRAINING
    from ..training.loop import train as train_captioner
    from ..training.run import Run, check_captions

    with only_one(out, TRAINING, wait=False):  # before hours of embedding, though the training itself takes it again
        pass
    if resume:
        carry_over(out)
        config = resumed_config(out, preset_name, values, say=print)
    data = open_drawn_world() if images is None else open_data(images, captions, splits, **reading)
    report_left_out(data)
    report_splits(data.captions)
    check_captions(out, data.captions)
    cache = cache or (DRAWN_CACHES[config.pooling] if images is None else out / "embeddings")
    report_cache(open_cache(data, config, cache), cache, data.image_names())
    remember_inputs(out, {"images": images, "captions": captions, "splits": splits, "cache": cache}, reading)
    run = train_captioner(
        config, data.captions, cache, out=out, resume=resume, max_steps=max_steps, max_hours=max_hours,
        watch=Validations(Run(out)), tracker=tracker,
    )  # fmt: skip
    print(f"the run lies in {run.folder}, its captioner in {run.captioner}")
    captions = captions or data.images.with_name("results.csv")
    print_next_steps(run, images=data.images, captions=captions, splits=splits, **reading)


@with_config
@with_reading
def ablate(
    context: typer.Context,
    *,
    vary: Annotated[
        list[str],
        typer.Option(
            "--vary", metavar="FIELD=A,B",
            help="What to change, and its values: one of the options below, such as prefix_length=1,4,10; "
            f"train_images, the number of training photos; or defect, one of the original's ({', '.join(DEFECTS)}). "
            "If it is given again, every combination is trained.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="CSV of the results, one row per run.")],
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", parser=whole, help="Runs of each combination.")] = 5,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", metavar="N", parser=whole,
            help="Runs at a time. By default one per card, or one per CPU core without a card.",
        ),
    ] = None,
    preset_name: PresetName = "tiny",
    images: Annotated[Path | None, IMAGES] = None,
    captions: Annotated[Path | None, CAPTIONS] = None,
    splits: Annotated[Path | None, SPLITS] = None,
    reading: dict[str, Any],
    cache: Annotated[Path | None, CACHE] = None,
    **values: Any,
) -> None:  # fmt: skip
    """Train with one thing changed, over several seeds, and compare.

    It trains on the drawn world, or on photos of your own. What is finished is not run again. The first value, or the
    first combination, is what the others are compared with. A JSON beside the CSV records how it was made.

    Examples:
      clipxgpt ablate --vary prefix_length=1,4,10 --seeds 5 --epochs 1 --out prefix.csv
      clipxgpt ablate --vary defect=none,double-softmax --out defects.csv
    """
    config = chosen_config(preset_name, values)
    varied = read_vary(vary, config, values)
    check_value("seeds", seeds, least=1)
    check_value("jobs", 1 if jobs is None else jobs, least=1)
    images, captions, splits = checks.photos_or_world(
        preset_name, images=images, captions=captions, splits=splits, reading=reading
    )
    checks.models(config)
    out = checks.output_file(out)
    from ..data.dataset import open_data, open_drawn_world
    from ..experiments.ablation import ablate as run_ablation

    data = open_drawn_world() if images is None else open_data(images, captions, splits, **reading)
    report_left_out(data)
    report_splits(data.captions)
    cache = cache or (None if images is None else out.with_name("embeddings"))
    results = run_ablation(
        config, varied, data, seeds=seeds, out=out, cache=cache, jobs=jobs,
        command=shlex.join(["clipxgpt", *context.find_root().obj]),
    )  # fmt: skip
    print_effects(results, varied)
    print(f"a row for each run lies in {out}")


def read_vary(texts: list[str], config: Config, given: dict[str, Any] | None = None) -> dict[str, list[Any]]:
    """Return `["prefix_length=1,4"]` as `{"prefix_length": [1, 4]}`.

    given: the config's values that the user gave. Raises UserError on an unknown name, on a value of a wrong type or
    one that is there twice, and on a combination that `config` cannot take, that makes no use of a value or whose
    models are not there.
    """
    kinds = {each.name: each.type for each in fields(Config)} | VARIED_BESIDE
    varied: dict[str, list[Any]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name == "seed" or name in varied:
            raise UserError(f"--vary {text}: {name} is varied already (the seeds by --seeds); leave this one out")
        if name not in kinds:
            known = f"{', '.join(name for name in kinds if name not in VARIED_BESIDE)}"
            raise UserError(f"--vary {text}: {name} is no field of the config; its fields are {known}; beside it stand "
                            f"{', '.join(VARIED_BESIDE)}")  # fmt: skip
        kind = kinds[name]
        try:
            varied[name] = [_boolean(value) if kind is bool else kind(value) for value in values.split(",")]
        except ValueError as error:
            raise UserError(f"--vary {text}: the values of {name} are {kind.__name__}s ({error})") from error
        if len(set(varied[name])) < len(varied[name]):
            raise UserError(
                f"--vary {text}: a value stands there twice and would be compared with itself; leave one out"
            )
    arms = []
    for values in itertools.product(*varied.values()):
        combination = dict(zip(varied, values, strict=True))
        check_value("defect", combination.pop("defect", "none"), choices=DEFECTS)
        check_value("train_images", combination.pop("train_images", 2), least=2)
        arms.append(config.with_values(**combination))
        checks.used(combination, arms[-1])
    checks.used({name: value for name, value in (given or {}).items() if name not in varied}, *arms)
    for arm in arms:
        checks.models(arm)
    return varied


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def notebooks(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run and the executed notebooks.")] = (
        Path("runs/tiny")
    ),
) -> None:
    """Execute the notebooks on the drawn world, one after the other.

    It takes minutes on a CPU and needs no download.

    Examples:
      clipxgpt notebooks
      clipxgpt notebooks --out runs/mine
    """
    checks.output_folder(out)
    from ..notebooks import run_series, summary

    run_series(out.resolve())
    print(summary(out))
