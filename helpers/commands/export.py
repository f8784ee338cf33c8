"""The commands that take a captioner out of PyTorch: export, page."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import check_value
from ..runtime.model_folders import captioner_folder
from . import checks
from .messages import complain
from .options import whole
from .predict import BATCH, open_batches

if TYPE_CHECKING:
    from PIL.Image import Image

PHOTOS = Path(__file__).parents[2] / "notebooks" / "photos"  # freely licensed ones, in a clone


def export(
    *,
    captioner: Annotated[
        Path,
        typer.Argument(metavar="CAPTIONER", help="Folder of a run or of a captioner, or photo.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the exported captioner.")],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", metavar="DIR", show_default=False,
            help="Pictures to compare its captions on. By default those in notebooks/photos, in a clone.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Export a captioner to ONNX, to write captions without PyTorch and in browsers.

    DIR gets two graphs in float32, DIR/int8 the same with smaller weights, and DIR/parity.json says which captions
    differ from PyTorch's. It needs pip install onnx onnxruntime onnxscript.

    Examples:
      clipxgpt export photo --out exported
      clipxgpt export runs/mine --out mine --images holiday
    """
    captioner = captioner_folder(captioner)
    checks.output_folder(out)
    chosen = checks.image_folder(images) if images else (PHOTOS if PHOTOS.is_dir() else None)
    paths = checks.pictures([str(chosen)]) if chosen else []
    from ..export.export import export_captioner

    report = export_captioner(captioner, out, _by_name(paths))
    for name, folder in (("float", out), ("int8", out / "int8")):
        same = ", ".join(
            f"{share:.1%} with {decoding}" if share is not None else "not compared"
            for decoding, share in report[name]["same_captions"].items()
        )
        print(
            f"{folder}: {report[name]['megabytes']} MB; captions as PyTorch's on {report['pictures']} pictures: {same}"
        )
    print(f"clipxgpt predict -C {out} --runtime onnx PHOTO")


def _by_name(paths: list[Path]) -> "Iterator[dict[str, Image]]":
    broken: list[Path] = []
    for batch in open_batches(paths, size=BATCH, broken=broken):
        yield {path.name: picture for path, picture in batch.items()}
    if broken:
        complain(f"{len(broken)} pictures are left out of the comparison")


def page(
    *,
    exported: Annotated[
        Path, typer.Argument(metavar="EXPORTED", help="What clipxgpt export made.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the page.")],
    examples: Annotated[
        Path | None,
        typer.Option("--examples", metavar="DIR", help="Pictures that the page offers.", show_default=False),
    ] = None,
    at_most: Annotated[
        int | None,
        typer.Option("--at-most", metavar="MB", parser=whole, help="Fail if the page is larger.", show_default=False),
    ] = None,
) -> None:  # fmt: skip
    """Build a static page that captions photos in the browser, for any web host.

    Nothing is uploaded: captioner and program are files of the page. The program, ONNX Runtime for the web, is fetched
    by npm once.

    Examples:
      clipxgpt page exported --out public
      clipxgpt page exported --out public --examples notebooks/photos --at-most 30
    """
    if at_most is not None:
        check_value("--at-most", at_most, least=1)
    checks.output_folder(out)
    if examples is not None:
        examples = checks.image_folder(examples)
        checks.pictures([str(examples)])
    from ..export.web_page import build_page

    sizes = build_page(exported, out, examples, at_most=at_most)
    megabytes = sum(sizes.values()) / 1e6
    print(f"the page lies in {out}, {megabytes:.1f} MB; to look at it: python -m http.server --directory {out}")
