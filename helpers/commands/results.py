"""The commands that show results: report, notebooks."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from . import checks
from .options import FOLLOW_LINKS


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
    if not (run / "config.json").exists():
        raise UserError(f"{run} holds no config.json: give the folder of a run, the --out of `clipxgpt train`")
    images = images and checks.image_folder(images)
    checks.output_file(out)
    from ..captions.names import follow_links as follow
    from ..ui.report import write_report

    if follow_links and images:
        follow(images)

    print(f"the report lies in {write_report(run, out, images=images)}")


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
