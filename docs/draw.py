"""Draw the pictures of README and docs: `make docs`.

The screenshots of the explorer and of the page of `make demo` need a Chromium, and are taken only with --browser.
"""

import argparse
import random
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # this script runs from any folder

import screenshot  # noqa: E402

from helpers import CaptionWriter, Data, UserError, open_data, open_picture, plot_learning_curve  # noqa: E402
from helpers.data.scene_captions import Scene, is_right  # noqa: E402
from helpers.data.scenes import draw_scene  # noqa: E402
from helpers.plots.architecture import DARK, plot_architecture  # noqa: E402

RESULTS, PHOTOS = ROOT / "notebooks" / "results", ROOT / "notebooks" / "photos"
DOTS_PER_INCH = 190  # two dots per CSS pixel where GitHub shows a picture about 900 pixels wide
GREEN, RED = "#1a7f37", "#b3261e"  # of a right and a wrong caption
GRAY = "#6b7280"


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw every picture that needs no browser into the folder --out, and the screenshots with --browser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the pictures (docs)")
    parser.add_argument("--captioner", type=Path, default=ROOT / "runs/tiny/captioner", help="(runs/tiny/captioner)")
    parser.add_argument("--world", type=Path, default=ROOT / "data/drawn", help="drawn world to caption (data/drawn)")
    parser.add_argument("--browser", action="store_true", help="take the screenshots too, after make demo")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    draw_from_the_repository(options.out)
    data = open_data(options.world / "flickr30k_images", options.world / "results.csv")
    _save(draw_captions(CaptionWriter.load(options.captioner), data), options.out / "captions.png")
    if options.browser:
        screenshot.take("photo", sorted(PHOTOS.glob("*.jpg")), options.out / "explorer.png")
        screenshot.take_demo(ROOT / "build" / "demo", PHOTOS / "temple.jpg", options.out / "browser.png")


def draw_from_the_repository(out: Path) -> None:
    """Draw what needs neither `make run` nor a browser: the architecture, the learning curve, photos with captions."""
    star = draw_scene(Scene("gray", "yellow", "star"), random.Random(1))
    _save(plot_architecture(star, "a yellow star"), out / "architecture.png")
    _save(plot_architecture(star, "a yellow star", DARK), out / "architecture-dark.png")
    _save(plot_learning_curve(pd.read_csv(RESULTS / "train_images.csv")), out / "learning_curve.png")
    _save(draw_photos(CaptionWriter.load("photo"), sorted(PHOTOS.glob("*.jpg"))), out / "photos.png")


def draw_photos(writer: CaptionWriter, paths: Sequence[Path], *, columns: int = 4) -> Figure:
    """Return the photos with their captions, as `clipxgpt predict` writes them.

    The caption of a photo unlike those of the training is gray and says so.
    """
    pictures = [open_picture(path) for path in paths]
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(2.35 * columns, 2.6 * rows), facecolor="white")
    embeddings = writer.embed(pictures)
    written = zip(pictures, writer.write(embeddings), writer.unlike_training(embeddings), strict=True)
    for place, (picture, caption, unlike) in enumerate(written):
        row, column = divmod(place, columns)
        box = (column / columns + 0.005, 1 - (row + 0.72) / rows, 1 / columns - 0.01, 0.7 / rows)
        axis = figure.add_axes(box, anchor="S")
        axis.imshow(picture)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        text = f"{caption} (unlike its training)" if unlike else caption
        axis.set_xlabel(textwrap.fill(text, 28), fontsize=10, color=GRAY if unlike else "black")
    return figure


def draw_captions(writer: CaptionWriter, data: Data, *, right: int = 3, wrong: int = 1) -> Figure:
    """Return the first test pictures with a right caption, in green, and the first with a wrong one, in red.

    A caption is right if every fact in it is. If there are too few of one kind, fewer pictures are shown.
    """
    names = data.image_names("test")
    pictures = {name: open_picture(data.images / name) for name in names}
    written = dict(zip(names, writer.write(writer.embed(list(pictures.values()))), strict=True))
    good = [name for name in names if is_right(written[name], data.facts[name])][:right]
    bad = [name for name in names if not is_right(written[name], data.facts[name])][:wrong]
    figure = Figure(figsize=(2.35 * (right + wrong), 3.05), facecolor="white")
    for place, name in enumerate(good + bad):
        axis = figure.add_axes((place / (right + wrong) + 0.005, 0.24, 1 / (right + wrong) - 0.01, 0.75))
        axis.imshow(pictures[name], interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.set_xlabel(textwrap.fill(written[name], 24), fontsize=11.5, color=GREEN if name in good else RED)
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
    print(f"drew {path}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"{error}; make run leaves a captioner and its pictures")
