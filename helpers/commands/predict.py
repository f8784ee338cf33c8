"""The command that writes captions: predict."""

import csv
import io
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import check_value
from ..errors import UserError
from ..runtime.model_folders import captioner_folder
from ..runtime.texts import defused, shown
from . import checks
from .messages import complain
from .options import BEAMS, CAPTIONER, CHOICE, GUIDANCE, NEUTRAL, choose, decimal, whole

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..export.writer import OnnxWriter
    from ..models.writer import CaptionWriter

RUNTIMES = ("torch", "onnx")
BATCH = 16  # pictures that are captioned at a time


def predict(
    *,
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PICTURE", show_default=False,
            help="Files, folders, and quoted patterns such as 'photos/**/*.jpg'.",
        ),
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", "-I", metavar="PICTURE", help="The same; may be given again.")
    ] = None,
    captioner: Annotated[Path, CAPTIONER] = Path("photo"),
    result: Annotated[
        Path | None, typer.Option("--result", "-R", metavar="DIR", help="Save each picture with its caption there.")
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE",
            help="Save a CSV with the columns image, caption and unlike_training (yes, no or empty).",
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", "-T", metavar="T", parser=decimal, rich_help_panel=CHOICE,
            help="0 takes the likeliest token each time; above 0 they are sampled, the more freely the higher.",
        ),
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(
            "--top-p", metavar="P", parser=decimal, rich_help_panel=CHOICE,
            help="Sample only from the likeliest tokens whose probabilities add up to this.",
        ),
    ] = 1.0,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", parser=whole, rich_help_panel=CHOICE, help="Seed of the sampling.")
    ] = 0,
    beams: Annotated[int, BEAMS] = 1,
    guidance: Annotated[float, GUIDANCE] = 1.0,
    neutral: Annotated[bool, NEUTRAL] = False,
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime", metavar=choose(RUNTIMES),
            help="What computes: PyTorch, or ONNX Runtime for a captioner that clipxgpt export made.",
        ),
    ] = "torch",
) -> None:  # fmt: skip
    """Caption pictures.

    For one picture the caption alone is printed, for several a line each. A broken picture costs only its own caption.
    Without -C the captioner of photos that ships with the project writes them.

    Examples:
      clipxgpt predict photo.jpg
      clipxgpt predict -C runs/mine holiday 'archive/**/*.png' --beams 5 --csv captions.csv
    """
    from ..export.folder import is_exported, read_settings
    from ..models.decoding import Decoding

    decoding = Decoding(
        beams=beams, temperature=temperature, top_p=top_p, seed=seed, guidance=guidance, neutral=neutral
    )
    checks.together({"--top-p": top_p != 1, "--seed": seed != 0}, "sampling (--temperature T)", temperature > 0)
    check_value("runtime", runtime, choices=RUNTIMES)
    if runtime == "onnx":
        read_settings(captioner)
    elif is_exported(captioner):
        raise UserError(f"{captioner} is an exported captioner: add --runtime onnx")
    else:
        captioner = captioner_folder(captioner)
    paths = checks.pictures([*(pictures or []), *(image or [])])
    checks.output_file(csv_file)
    checks.output_folder(result)
    saved = [result / _file_name(path, paths) for path in paths] if result else []
    checks.no_input([csv_file, *saved], paths)
    broken: list[Path] = []
    # A sampled caption depends on what else is in its batch; one picture per batch always gives the same caption.
    batches = open_batches(paths, size=1 if temperature else BATCH, broken=broken)
    first = next(batches, None)  # opened before PyTorch is imported, so that a wrong path is answered at once
    if first is None:
        sys.exit(2)
    from tqdm import tqdm

    from ..runtime.files import write_text

    writer = _load(captioner, runtime)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "caption", "unlike_training"])
    with tqdm(total=len(paths), desc="captions", unit="picture", disable=len(paths) <= BATCH) as bar:
        for batch in itertools.chain([first], batches):
            embeddings = writer.embed(list(batch.values()))
            captions = dict(zip(batch, writer.write(embeddings, decoding), strict=True))
            unlike = writer.unlike_training(embeddings)
            tqdm.write(
                "\n".join(
                    f"{shown(path)}: {shown(caption)}" if len(paths) > 1 else shown(caption)
                    for path, caption in captions.items()
                )
            )
            for (path, caption), strange in zip(captions.items(), unlike, strict=True):
                table.writerow([defused(str(path)), defused(caption), {True: "yes", False: "no", None: ""}[strange]])
                if strange:
                    tqdm.write(f"{shown(path)} is unlike the pictures that this captioner was trained on: its caption "
                               "may be nonsense", file=sys.stderr)  # fmt: skip
            for path, caption in captions.items() if result else ():
                _save_picture(batch[path], caption, result / _file_name(path, paths))
            bar.update(len(batch))
    if csv_file:
        write_text(csv_file, text.getvalue())
    if broken:
        sys.exit(2)


def _load(captioner: Path, runtime: str) -> "CaptionWriter | OnnxWriter":
    """Load the captioner; only PyTorch's needs PyTorch, and takes the seconds of its import."""
    if runtime == "onnx":
        from ..export.writer import OnnxWriter

        return OnnxWriter.load(captioner)
    from ..models.writer import CaptionWriter
    from ..runtime.device import choose_accelerator

    return CaptionWriter.load(captioner, device=choose_accelerator("fp32").device)


def open_batches(paths: list[Path], *, size: int, broken: list[Path]) -> "Iterator[dict[Path, Image]]":
    """Yield up to `size` pictures at a time. One that cannot be read is named on stderr and added to `broken`."""
    from ..data.images import open_picture

    for start in range(0, len(paths), size):
        batch = {}
        for path in paths[start : start + size]:
            try:
                batch[path] = open_picture(path)
            except UserError as error:
                broken.append(path)
                complain(error)
        if batch:
            yield batch


def _save_picture(picture: "Image", caption: str, path: Path) -> None:
    from ..plots.base import save_figure
    from ..plots.captions import show_pictures

    save_figure(show_pictures([picture], [caption], columns=1), path)


def _file_name(path: Path, paths: list[Path]) -> str:
    """Return NAME.png, with the picture's number in front if another picture has the same name."""
    alone = [each.stem for each in paths].count(path.stem) == 1
    return f"{path.stem}.png" if alone else f"{paths.index(path) + 1}-{path.stem}.png"
