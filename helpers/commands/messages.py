"""The lines that several commands print: mistakes, counts of data, the course of a training, and what to do next."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.texts import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from ..data.dataset import Data
    from ..data.embedding_cache import EmbeddingCache
    from ..training.run import Run


def complain(about: object) -> int:
    """Print one line on stderr, above any progress bar; return the exit status for it."""
    from tqdm import tqdm

    tqdm.write(f"clipxgpt: {shown(' '.join(str(about).split()))}", file=sys.stderr)
    return 2


def report_left_out(data: "Data") -> None:
    if len(data.left_out):
        first = data.left_out.iloc[0]
        print(f"{len(data.left_out)} rows of the captions file are left out, first row {first.row}: "
              f"{shown(first.reason)}")  # fmt: skip
    if data.uncaptioned:
        first = shown(data.uncaptioned[0])
        print(f"{len(data.uncaptioned)} pictures in {data.images} have no caption, first {first}")


def report_splits(captions: "pd.DataFrame") -> None:
    """Print how many photos and captions there are to train on, to validate on, and to test on."""
    said = []
    for split in ("train", "val", "test"):
        rows = captions[captions.split == split]
        said.append(f"{split} {rows.image_name.nunique():,} photos ({len(rows):,} captions)")
    print("; ".join(said))


def report_cache(cache: "EmbeddingCache", folder: Path, names: "Iterable[str]") -> None:
    """Print how many of the pictures `names` have an embedding, and how many are left out."""
    names = set(names)
    print(f"{len(names & set(cache.image_names))} embeddings lie in {folder}")
    left_out = cache.left_out[cache.left_out.image_name.isin(names)]
    if len(left_out):
        first = left_out.iloc[0]
        print(f"{len(left_out)} pictures are left out (left_out.csv), first {shown(first.image_name)}: "
              f"{shown(first.reason)}")  # fmt: skip


def print_effects(results: "pd.DataFrame", varied: dict[str, list]) -> None:
    """Print what each value changes, or each combination of values if several fields are varied, against the first."""
    from ..experiments.questions import measure_of
    from ..experiments.significance import paired_effects

    measure = measure_of(results)
    by = ", ".join(varied)
    values = zip(*(results[name].astype(str) for name in varied), strict=True)
    arms = results.assign(**{by: [", ".join(each) for each in values]})
    print(f"{measure} by {by}, against the first row, paired by seed; low and high are those of the 95 % interval of")
    print("the difference, p_holm is corrected for all comparisons of the table, and below 0.05 there is a verdict:")
    effects = paired_effects(arms, by, measure=measure, base=arms[by].iloc[0])
    print(effects.round(3).to_string(index=False, na_rep=""))


class Validations:
    """Print one line per validation of a run: the losses, and the caption of one validation picture."""

    def __init__(self, run: "Run"):
        self.run = run
        self.printed = set(run.samples().index)  # those of earlier sessions

    def __call__(self, history: "pd.DataFrame") -> None:
        from tqdm import tqdm

        samples = self.run.samples()
        for row in history.dropna(subset="val_loss").itertuples():
            if row.step in self.printed:
                continue
            self.printed.add(row.step)
            written = samples.loc[row.step].dropna().items() if row.step in samples.index else ()
            sample = "".join(f"; {shown(image_name)}: {shown(caption)}" for image_name, caption in list(written)[:1])
            tqdm.write(f"step {row.step}, epoch {row.epoch:.2f}: loss {row.loss:.3f}, validation loss "
                       f"{row.val_loss:.3f}{sample}")  # fmt: skip


def print_next_steps(
    run: "Run", *, images: Path, captions: Path, splits: Path | None, image_column: str | None,
    caption_column: str | None, follow_links: bool,
) -> None:  # fmt: skip
    """Print the commands that caption, measure and report with a run."""
    given = {"--splits": splits, "--image-column": image_column, "--caption-column": caption_column}
    links = ["--follow-links"] if follow_links else []
    photos = ["--images", images, "--captions", captions, *links]
    photos += [part for option, value in given.items() if value for part in (option, value)]
    print("what to do next:")
    for arguments in (
        ["predict", "-C", run.folder, "PHOTO.jpg"],
        ["evaluate", "-C", run.folder, *photos, "--out", run.folder / "test"],
        ["report", run.folder, "--images", images, *links],
    ):
        print(f"  clipxgpt {shlex.join(map(str, arguments))}")
