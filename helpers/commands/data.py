"""The commands that make data: draw, embed, neutralize."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import POOLINGS
from . import checks
from .messages import report_cache, report_left_out
from .options import CAPTIONS, IMAGES, READING, choose, whole, with_reading


def draw(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the new world.")],
    images: Annotated[int, typer.Option("--images", metavar="N", parser=whole, help="Number of pictures.")] = 3000,
    seed: Annotated[int, typer.Option("--seed", metavar="N", parser=whole, help="Which of the worlds to draw.")] = 0,
) -> None:
    """Draw a world of small pictures with captions, in Flickr30k's layout.

    Every fact of every picture is known, so it can be checked whether a caption is right.

    Examples:
      clipxgpt draw --out data/drawn
      clipxgpt draw --out data/another --images 500 --seed 7
    """
    checks.output_folder(out)
    from ..data.scenes import draw_world

    world = draw_world(out, images=images, seed=seed)
    print(f"{images} pictures, results.csv and facts.json lie in {world}")


@with_reading
def embed(
    *,
    images: Annotated[Path, IMAGES],
    captions: Annotated[Path, CAPTIONS],
    reading: dict[str, Any],
    clip: Annotated[str, typer.Option("--clip", metavar="NAME_OR_DIR", help="Hub name, folder, or tiny.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the embeddings; a killed run goes on.")],
    pooling: Annotated[
        str,
        typer.Option("--pooling", metavar=choose(POOLINGS), help="As in train."),
    ] = "pooled",
    part: Annotated[
        str, typer.Option("--part", metavar="I/N", help="Embed only part I of N, on one of several machines.")
    ] = "1/1",
) -> None:
    """Encode every picture once with a frozen CLIP, and keep the embeddings.

    The command train does this by itself; embed does it beforehand, or in parts on several machines.

    Examples:
      clipxgpt embed --images photos --captions captions.csv --clip tiny --out embeddings
      clipxgpt embed --images photos --captions captions.csv --clip tiny --out part2 --part 2/4
    """
    from ..config import Config

    index, count = checks.part(part)
    config = Config(clip=clip, pooling=pooling)
    images, captions, _ = checks.photos(images, captions)
    checks.clip(clip)
    checks.output_folder(out)
    from ..data.build_cache import open_cache
    from ..data.dataset import open_data
    from ..data.shards import WHOLE, Part

    share = Part(index, count)
    data = open_data(images, captions, **reading)
    report_left_out(data)
    cache = open_cache(data, config, out, part=share)
    if share != WHOLE:
        print(f"part {share} of the pictures is done")
    report_cache(cache, out, data.image_names())


def neutralize(
    *,
    captions: Annotated[Path, CAPTIONS],
    image_column: Annotated[str | None, READING["image_column"][-1]] = None,
    caption_column: Annotated[str | None, READING["caption_column"][-1]] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="CSV of the same captions, to train with.")],
) -> None:
    """Write a captions file without words for gender.

    Man and woman become person, boy and girl child, his and her their (docs/scores.md). A captioner that is trained
    with the new file is not taught words for gender.

    Examples:
      clipxgpt neutralize --captions captions.csv --out neutral.csv
      clipxgpt neutralize --captions dataset_flickr30k.json --out neutral.csv
    """
    captions = checks.existing_file(captions)
    out = checks.output_file(out)
    checks.no_input([out], [captions])
    from ..captions.read import read_captions
    from ..runtime.files import atomic_path
    from ..words.people import neutral

    table, left_out = read_captions(captions, image_column=image_column, caption_column=caption_column)
    worded = table.assign(caption=table.caption.map(neutral))
    with atomic_path(out) as partial:
        worded.to_csv(partial, index=False)
    print(f"{len(table):,} captions lie in {out}, {(worded.caption != table.caption).sum():,} of them reworded; "
          f"{len(left_out):,} rows that cannot be used are left out")  # fmt: skip
