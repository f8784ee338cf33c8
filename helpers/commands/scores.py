"""The commands that measure captions and show what was measured: evaluate, score, report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import check_value
from ..errors import UserError
from ..runtime.model_folders import different_captioners, read_run_config, training_splits
from ..runtime.texts import shown
from . import checks
from .messages import complain, report_cache, report_left_out
from .options import BEAMS, CAPTIONS, CLIP, FOLLOW_LINKS, GUIDANCE, IMAGES, NEUTRAL, PEOPLE, SPLITS, with_reading

EVALUATED = ("captions.csv", "by_image.csv", "metrics.json", "pictures.json")  # files that evaluate writes of each
EXAMPLES = 3  # captions that evaluate shows


def _control(control: str, help: str) -> Any:
    return typer.Option(f"--{control}", help=help, rich_help_panel="Controls, one at a time")


@with_reading
def evaluate(
    *,
    captioners: Annotated[
        list[Path],
        typer.Option("--captioner", "-C", metavar="DIR", help="Folder of a run or of a captioner, or photo. Several of "
                     "one recipe with different seeds also show the spread of the trainings."),
    ],
    images: Annotated[Path, IMAGES],
    captions: Annotated[Path, CAPTIONS],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the captions and their scores.")],
    splits: Annotated[Path | None, SPLITS] = None,
    reading: dict[str, Any],
    split: Annotated[
        str, typer.Option("--split", metavar="NAMES", help="Split to evaluate, or several: val,test.")
    ] = "test",
    beams: Annotated[int, BEAMS] = 1,
    guidance: Annotated[float, GUIDANCE] = 1.0,
    neutral: Annotated[bool, NEUTRAL] = False,
    clip: Annotated[str | None, CLIP] = None,
    meteor: Annotated[
        bool, typer.Option("--meteor", help="Measure METEOR too; its Java takes half a minute.")
    ] = False,
    people: Annotated[bool, PEOPLE] = False,
    shuffled: Annotated[
        bool, _control("shuffle-embeddings", "Give every picture the embedding of another one.")
    ] = False,
    mean: Annotated[
        bool, _control("mean-embedding", "Give every picture the mean embedding of the training pictures.")
    ] = False,
    nearest: Annotated[
        bool, _control("nearest-caption", "Write nothing: take a caption of the nearest training picture.")
    ] = False,
) -> None:  # fmt: skip
    """Caption held-out pictures, measure, and say whether the picture helps.

    Examples:
      clipxgpt evaluate -C runs/mine --images photos --captions captions.csv --out runs/mine/test
      clipxgpt evaluate -C runs/0 -C runs/1 -C runs/2 --images photos --captions captions.csv --out runs/012
    """
    from ..models.decoding import Decoding

    decoding, wanted = Decoding(beams=beams, guidance=guidance, neutral=neutral), split.split(",")
    for name in wanted:
        check_value("split", name, choices=("train", "val", "test"))
    controls = [name for name, on in {"shuffled": shuffled, "mean": mean, "nearest": nearest}.items() if on]
    if len(controls) > 1:
        raise UserError("--shuffle-embeddings, --mean-embedding and --nearest-caption exclude each other: give one")
    writing = {"--beams": beams != 1, "--guidance": guidance != 1}
    checks.together(writing, "writing, and --nearest-caption writes nothing", not nearest)
    different_captioners(captioners)
    images, captions, splits = checks.photos(images, captions, splits)
    if splits is None and (splits := training_splits(captioners, images, captions)):
        complain(f"the splits are those of the training, {splits}: --splits FILE gives others")
    checks.clip(clip)
    places = [out / str(number) for number in range(len(captioners))] if captioners[1:] else [out]
    made = {place / "metrics.json": [place / name for name in EVALUATED] for place in places}
    if captioners[1:]:
        made[out / "trainings.json"] = [out / "trainings.json"]
    for proof, files in made.items():
        checks.no_input(files, [captions, splits])
        checks.evaluated(proof, files)
    from ..data.build_cache import build_cache
    from ..data.dataset import open_data
    from ..evaluation.clipscore import ClipJudge
    from ..evaluation.evaluate import check_encoders, other_recipe, over_trainings
    from ..evaluation.evaluate import evaluate as evaluate_captioner
    from ..evaluation.score_file import read_written
    from ..evaluation.scores import training_lines
    from ..models.writer import CaptionWriter
    from ..runtime.device import choose_accelerator
    from ..runtime.files import write_json
    from ..training.run import training_config

    data = open_data(images, captions, splits, **reading)
    images = data.images
    report_left_out(data)
    known = sorted(set(data.captions.split))
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(
            f"no image is in split {unknown[0]!r}: give one or more of {','.join(known)}, the splits of "
            f"{splits or captions}"
        )
    references, training = (data.captions[data.captions.split.isin(some)] for some in (wanted, ["train"]))
    names = [*references.image_name.unique(), *(training.image_name.unique() if nearest else ())]
    check_encoders(captioners)
    configs = {str(captioner): training_config(captioner) for captioner in captioners}
    found, judge = {}, clip and ClipJudge.load(clip)
    for (captioner, config), place in zip(configs.items(), places, strict=True):
        writer = CaptionWriter.load(captioner, device=choose_accelerator("fp32").device)
        cache = build_cache(out / "embeddings", images, names, clip=writer.clip(captioner))
        report_cache(cache, out / "embeddings", names)
        metrics = evaluate_captioner(
            writer, references, cache, out=place, decoding=decoding, facts=data.facts,
            control=next(iter(controls), None), config=config, training=training, judge=judge, images=images,
            meteor=meteor, people=people,
        )  # fmt: skip
        _print_scores(metrics, read_written(place / "captions.csv"), photos=data.facts is None, examples=EXAMPLES)
        print(f"captions.csv, metrics.json and by_image.csv lie in {place}")
        found[captioner] = metrics
    if captioners[1:] and (reason := other_recipe(configs)):
        print(f"no spread of the trainings is shown: {shown(reason)}")
    elif captioners[1:]:
        trainings = over_trainings(found)
        write_json(out / "trainings.json", trainings)
        print("\n".join(training_lines(trainings)))
        print(f"the spread of the trainings lies in {out / 'trainings.json'}")


@with_reading
def score(
    *,
    captions: Annotated[
        Path,
        typer.Option(
            "--captions", metavar="FILE", help="CSV with the columns image_name and caption, or COCO's results JSON."
        ),
    ],
    references: Annotated[
        Path, typer.Option("--references", metavar="FILE", help="Captions file of the same pictures.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="JSON of the scores; each image's lie beside it.")],
    splits: Annotated[Path | None, SPLITS] = None,
    reading: dict[str, Any],
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Nothing of the references was trained on: score all of them.")
    ] = False,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE", help="Another captions file, to compare with.")
    ] = None,
    clip: Annotated[str | None, CLIP] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Folder of the pictures, for CLIPScore.")
    ] = None,
    people: Annotated[bool, PEOPLE] = False,
    coco_results: Annotated[
        Path | None,
        typer.Option("--coco-results", metavar="FILE", help="Write the captions as COCO's results JSON there, too."),
    ] = None,
) -> None:  # fmt: skip
    """Score a captions file against references.

    It may come from evaluate or from another program.

    Examples:
      clipxgpt score --captions runs/mine/test/captions.csv --references captions.csv --out scores.json
      clipxgpt score --captions a.csv --against b.csv --references captions.csv --out scores.json
    """
    captions, references, splits, against = (
        checks.existing_file(path) for path in (captions, references, splits, against)
    )
    checks.together(
        {"--splits": splits is not None}, "training pictures, and --held-out says there are none", not held_out
    )
    images = _judged_folder(images, follow_links=reading["follow_links"])
    checks.clip(clip)
    out = checks.output_file(out)
    coco_results = checks.output_file(coco_results)
    from ..evaluation.score_file import by_image, read_written, score_file

    checks.output_file(by_image(out))
    checks.no_input([out, by_image(out), coco_results], [captions, references, splits, against])
    checks.no_input([coco_results], [out, by_image(out)])
    columns = {name: reading[name] for name in ("image_column", "caption_column")}
    metrics = score_file(
        captions, references, out=out, splits=splits, held_out=held_out, against=against, clip=clip, images=images,
        coco_results=coco_results, people=people, **columns,
    )  # fmt: skip
    written = read_written(captions, **columns)
    _print_scores(metrics, written, photos=True)
    print(f"the scores lie in {out}, those of each image in {by_image(out)}")


def report(
    *,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="By default RUN/report.html.")] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Folder of the pictures that the run captioned.")
    ] = None,
    follow_links: Annotated[bool, FOLLOW_LINKS] = False,
) -> None:
    """Make one HTML file about a run, to share.

    It holds the curves, the scores, and captions beside their pictures.

    Examples:
      clipxgpt report runs/tiny
      clipxgpt report runs/mine --images photos --out mine.html
    """
    if read_run_config(run) is None:
        raise UserError(f"{run} holds no config.json: give the folder of a run, the --out of `clipxgpt train`")
    images = _judged_folder(images, follow_links=follow_links)
    out = checks.output_file(out)
    checks.no_input([out], (file for file in run.rglob("*") if file.suffix != ".html"))  # an earlier report
    from ..sharing.report import write_report

    print(f"the report lies in {write_report(run, out, images=images)}")


def _judged_folder(images: Path | None, *, follow_links: bool) -> Path | None:
    """Return the folder of pictures, if one is named, and follow its links from now on, if they are to be followed."""
    checks.together({"--follow-links": follow_links}, "--images DIR", images is not None)
    if images is None:
        return None
    from ..captions import names

    folder = checks.image_folder(images)
    if follow_links:
        names.follow_links(folder)
    return folder


def _print_scores(metrics: dict[str, Any], written: dict[str, str], *, photos: bool, examples: int = 0) -> None:
    """Print the scores of {image_name: caption}, with published ones beside them if the photos are Flickr's."""
    from ..evaluation.people import people_lines
    from ..evaluation.published_scores import beside
    from ..evaluation.scores import summary_lines

    lines = beside(metrics, written) if photos else []
    lines += summary_lines(metrics, examples=list(written.items())[:examples])
    lines += people_lines(metrics)
    print("\n".join(map(shown, lines)))
