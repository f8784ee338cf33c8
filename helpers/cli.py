"""The commands. Each reads its flags and calls the helper that does the work; none has logic of its own."""

import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .config import preset
from .errors import UserError
from .flags import build_parser, read_vary


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. A mistake of the user ends in one line on stderr and exit status 2, Ctrl-C in 130."""
    commands = (draw, pretrain, embed, train, predict, evaluate, score, ablate, report, notebooks)
    if os.environ.get("RANK", "0") != "0":  # one of torchrun's processes speaks for all, unless something goes wrong
        os.environ["TQDM_DISABLE"] = "1"
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda warning, *_where, **_also: _complain(warning)
            options = vars(build_parser().parse_args(arguments))
            {function.__name__: function for function in commands}[options.pop("command")](**options)
            sys.stdout.flush()
    except UserError as error:
        sys.exit(_complain(error))
    except BrokenPipeError:  # whoever read this command's output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a full disk, a folder that may not be written to
        reason = f"{error.filename or 'writing'}: {error.strerror or error}"
        sys.exit(_complain(f"{reason}; check the path, whether you may write there, and the room on its disk"))
    except KeyboardInterrupt:
        _complain("interrupted; run the same command again to go on")
        sys.exit(130)


def _complain(about: object) -> int:
    """One line on stderr, whatever it is about; the exit status that belongs to it."""
    print(f"clipxgpt: {' '.join(str(about).split())}", file=sys.stderr)
    return 2


def draw(out: Path, images: int, seed: int) -> None:
    from .data.scenes import draw_world

    world = draw_world(out, images, seed)
    print(f"{images} pictures, results.csv and facts.json lie in {world}")


def pretrain(
    images: Path, captions: Path, splits: Path | None, text: Path | None, out: Path, recipe: str | None
) -> None:
    from .data.dataset import open_data
    from .pretraining.pretrain import pretrain as pretrain_pair

    data = open_data(images, captions, splits)
    _report_left_out(data)
    facts = captions.with_name("facts.json") if data.facts else None
    report = pretrain_pair(images, data.captions, out, recipe or ("drawn" if facts else "photos"), facts, text)
    for name, value in report.items():
        print(f"{name:<28}{value}")
    print(f"the pair lies in {out / 'clip'} and {out / 'gpt2'}")


def embed(images: Path, captions: Path, clip: str, pooling: str, out: Path, part: str) -> None:
    from .config import Config
    from .data.build_cache import open_cache
    from .data.dataset import open_data
    from .data.shards import WHOLE, Part

    share = Part.parse(part)
    data = open_data(images, captions)
    _report_left_out(data)
    cache = open_cache(data, Config(clip=clip, pooling=pooling), out, share)
    if share != WHOLE:
        print(f"part {share} of the pictures is done")
    _report_cache(cache, out)


def train(
    preset_name: str, out: Path, images: Path | None, captions: Path | None, splits: Path | None, cache: Path | None,
    resume: bool, max_hours: float | None, max_steps: int | None, tracker: str | None, **values: Any,
) -> None:  # fmt: skip
    from .data.build_cache import DRAWN_CACHES, open_cache
    from .training.loop import train as train_captioner
    from .training.run import carry_over, refuse_taken

    config = preset(preset_name).with_values(**values)
    if resume:
        carry_over(out)
    refuse_taken(out, resume)  # before the pictures are embedded, which may take long
    data = _open_data(preset_name, images, captions, splits)
    cache = cache or (DRAWN_CACHES[config.pooling] if images is None else out / "embeddings")
    _report_cache(open_cache(data, config, cache), cache)
    run = train_captioner(config, data.captions, cache, out, resume, max_steps, max_hours, tracker=tracker)
    print(f"the run lies in {run.folder}, its captioner in {run.captioner}")


def predict(
    image: list[Path], captioner: Path, result: Path | None, temperature: float, beams: int, top_p: float, seed: int,
    guidance: float,
) -> None:  # fmt: skip
    from .data.images import open_picture
    from .models.decoding import Decoding
    from .models.writer import CaptionWriter
    from .plots.base import save_figure
    from .plots.captions import show_pictures
    from .runtime.device import choose_accelerator

    decoding = Decoding(beams=beams, temperature=temperature, top_p=top_p, seed=seed, guidance=guidance)
    writer = CaptionWriter.load(captioner, choose_accelerator("fp32").device)
    status, names = 0, [path.stem for path in image]
    for number, path in enumerate(image, start=1):
        try:
            picture = open_picture(path)
        except UserError as error:  # one broken picture does not cost the captions of the others
            status = _complain(error)
            continue
        (caption,) = writer.write(writer.embed([picture]), decoding)
        print(f"{path}: {caption}" if len(image) > 1 else caption)
        if result:
            name = path.stem if names.count(path.stem) == 1 else f"{number}-{path.stem}"
            save_figure(show_pictures([picture], [caption], columns=1), result / f"{name}.png")
    if status:
        sys.exit(status)


def evaluate(
    captioner: Path, images: Path, captions: Path, splits: Path | None, split: str, out: Path, beams: int,
    guidance: float, control: str | None, clip: str | None, meteor: bool,
) -> None:  # fmt: skip
    from .data.build_cache import build_cache
    from .data.dataset import open_data
    from .evaluation.clipscore import ClipJudge
    from .evaluation.evaluate import evaluate as evaluate_captioner
    from .evaluation.scores import as_lines
    from .models.decoding import Decoding
    from .models.writer import CaptionWriter
    from .runtime.device import choose_accelerator

    decoding = Decoding(beams=beams, guidance=guidance)
    writer = CaptionWriter.load(captioner, choose_accelerator("fp32").device)
    data = open_data(images, captions, splits)
    _report_left_out(data)
    known, wanted = sorted(set(data.captions.split)), split.split(",")
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(
            f"no image is in split {unknown[0]!r}: give one or more of {','.join(known)}, the splits of "
            f"{splits or captions}"
        )
    judge = clip and ClipJudge.load(clip)
    references, training = (data.captions[data.captions.split.isin(some)] for some in (wanted, ["train"]))
    names = [*references.image_name.unique(), *(training.image_name.unique() if control == "nearest" else ())]
    cache = build_cache(out / "embeddings", images, names, writer.clip(str(captioner)))
    _report_cache(cache, out / "embeddings")
    metrics = evaluate_captioner(
        writer, references, cache, out, decoding, data.facts, control, training, judge, images, meteor
    )
    print("\n".join(as_lines(metrics)))
    if data.facts is None:
        _print_yardsticks(metrics, references.image_name)
    print(f"captions.csv, metrics.json and by_image.csv lie in {out}")


def score(
    captions: Path, references: Path, splits: Path | None, held_out: bool, out: Path, against: Path | None,
    clip: str | None, images: Path | None,
) -> None:  # fmt: skip
    from .evaluation.score_file import by_image, read_written
    from .evaluation.score_file import score as score_captions
    from .evaluation.scores import as_lines

    metrics = score_captions(captions, references, out, splits, held_out, against, clip, images)
    print("\n".join(as_lines(metrics)))
    _print_yardsticks(metrics, read_written(captions))
    print(f"the scores lie in {out}, those of each image in {by_image(out)}")


def ablate(
    vary: list[str], seeds: int, out: Path, jobs: int | None, preset_name: str, images: Path | None,
    captions: Path | None, splits: Path | None, cache: Path | None, **values: Any,
) -> None:  # fmt: skip
    from .experiments.ablation import ablate as run_ablation
    from .experiments.significance import verdict

    config, varied = preset(preset_name).with_values(**values), read_vary(vary)
    data = _open_data(preset_name, images, captions, splits)
    cache = cache or (None if images is None else out.with_name("embeddings"))
    results = run_ablation(config, varied, seeds, data, cache, out, jobs)
    for field in varied:
        print(verdict(results, field, "val_loss" if data.facts is None else "correct").round(3).to_string(index=False))
    print(f"a row for each run lies in {out}")


def report(run: Path, out: Path | None, images: Path | None) -> None:
    from .ui.report import write_report

    print(f"the report lies in {write_report(run, out, images)}")


def notebooks(out: Path) -> None:
    from .notebooks import run_series, summary

    run_series(out.resolve())
    print(summary(out))


def _open_data(preset_name: str, images: Path | None, captions: Path | None, splits: Path | None) -> Any:
    """Photos with their captions, or the drawn world where none are given; what is left out of them is reported."""
    from .data.dataset import open_data, open_drawn_world

    if (images is None) != (captions is None):
        raise UserError("--images and --captions belong together: give both, or neither for the drawn world")
    if images is None and preset_name != "tiny":
        raise UserError(f"preset {preset_name} trains on photos of your own: give --images DIR and --captions FILE")
    data = open_drawn_world() if images is None else open_data(images, captions, splits)
    _report_left_out(data)
    return data


def _print_yardsticks(metrics: dict[str, Any], image_names: Iterable[str]) -> None:
    from .evaluation.published_scores import beside, is_flickr30k

    if "cider" in metrics and is_flickr30k(image_names):
        print("\n".join(beside(metrics["cider"], metrics["images"])))


def _report_left_out(data: Any) -> None:
    if len(data.left_out):
        first = data.left_out.iloc[0]
        print(f"{len(data.left_out)} rows of the captions file are left out, first row {first.row}: {first.reason}")
    if data.uncaptioned:
        print(f"{len(data.uncaptioned)} files in {data.images} have no caption, first {data.uncaptioned[0]}")


def _report_cache(cache: Any, folder: Path) -> None:
    print(f"{len(cache)} embeddings lie in {folder}")
    if len(cache.left_out):
        first = cache.left_out.iloc[0]
        print(f"{len(cache.left_out)} pictures are left out (left_out.csv), first {first.image_name}: {first.reason}")
