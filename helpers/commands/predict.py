"""The command that writes captions: predict."""

import csv
import io
import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import check_value
from ..errors import UserError
from ..runtime.files import write_text
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
SOURCE = "clipxgpt predict --result"  # stands in the pictures that it saves
BEGIN = 1000  # bytes of a picture in which that stands


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
    csv_file = checks.output_file(csv_file)
    checks.output_folder(result)
    saved = dict(zip(paths, _saved_as(result, paths), strict=True)) if result else {}
    checks.no_input([csv_file, *saved.values()], paths)
    checks.no_input([csv_file], saved.values())
    if theirs := next((path for path in saved.values() if path.exists() and not _made_here(path)), None):
        raise UserError(f"{theirs} is there already and was not made by --result: name another folder")
    broken: list[Path] = []
    # A sampled caption depends on what else is in its batch; one picture per batch always gives the same caption.
    batches = open_batches(paths, size=1 if temperature else BATCH, broken=broken)
    first = next(batches, None)  # opened before PyTorch is imported, so that a wrong path is answered at once
    if first is None:
        sys.exit(2)
    from tqdm import tqdm

    writer = _load(captioner, runtime)
    with (
        _table(csv_file, len(paths)) as rows,
        tqdm(total=len(paths), desc="captions", unit="picture", disable=len(paths) <= BATCH) as bar,
    ):
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
            if getattr(sys.stdout, "unread", False) and not (csv_file or result):
                raise BrokenPipeError
            for (path, caption), strange in zip(captions.items(), unlike, strict=True):
                rows.append([defused(str(path)), defused(caption), {True: "yes", False: "no", None: ""}[strange]])
                if strange:
                    tqdm.write(f"{shown(path)} is unlike the pictures that this captioner was trained on: its caption "
                               "may be nonsense", file=sys.stderr)  # fmt: skip
            for path, caption in captions.items() if result else ():
                _save_picture(batch[path], caption, saved[path])
            bar.update(len(batch))
    if broken:
        sys.exit(2)


@contextmanager
def _table(path: Path | None, pictures: int) -> Iterator[list[list[str]]]:
    """Yield the rows to add to, and save them at `path`; after an interruption those that are there.

    They then lie beside a file that stands at `path`, because it may be a whole one.
    """
    rows = [["image", "caption", "unlike_training"]]
    try:
        yield rows
    except BaseException as error:
        if path and path.is_file():
            path = path.with_name(f"{path.stem}-interrupted{path.suffix}")
        said = "the same command begins with the first picture again"
        if path and rows[1:]:
            _write_table(path, rows)
            said = f"{path} holds the captions of {len(rows) - 1} of {pictures} pictures; {said}"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(said) from error
        raise
    if path:
        _write_table(path, rows)


def _write_table(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


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

    save_figure(show_pictures([picture], [caption], columns=1), path, source=SOURCE)


def _saved_as(folder: Path, paths: list[Path]) -> list[Path]:
    """Return NAME.png in the folder for each picture; those that would share one get their number in front.

    Names that differ in capitals alone are one name to macOS and Windows.
    """
    names = [path.stem for path in paths]
    while shared := {name for name, count in Counter(map(str.lower, names)).items() if count > 1}:
        names = [f"{i}-{name}" if name.lower() in shared else name for i, name in enumerate(names, 1)]
    return [folder / f"{name}.png" for name in names]


def _made_here(path: Path) -> bool:
    """Return whether an earlier --result saved this picture, which may be replaced."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return SOURCE.encode() in file.read(BEGIN)
