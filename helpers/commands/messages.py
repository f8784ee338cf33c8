"""The lines that several commands print: mistakes, counts of data, the course of a training, and what to do next."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ..data.dataset import Data
    from ..data.embedding_cache import EmbeddingCache
    from ..training.run import Run


def complain(about: object) -> int:
    """Print one line on stderr, above any progress bar; return the exit status for it."""
    from tqdm import tqdm

    tqdm.write(f"clipxgpt: {' '.join(str(about).split())}", file=sys.stderr)
    return 2


def report_left_out(data: "Data") -> None:
    if len(data.left_out):
        first = data.left_out.iloc[0]
        print(f"{len(data.left_out)} rows of the captions file are left out, first row {first.row}: {first.reason}")
    if data.uncaptioned:
        print(f"{len(data.uncaptioned)} files in {data.images} have no caption, first {data.uncaptioned[0]}")


def report_splits(captions: "pd.DataFrame") -> None:
    """Print how many photos and captions there are to train on, to validate on, and to test on."""
    said = []
    for split in ("train", "val", "test"):
        rows = captions[captions.split == split]
        said.append(f"{split} {rows.image_name.nunique():,} photos ({len(rows):,} captions)")
    print("; ".join(said))


def report_cache(cache: "EmbeddingCache", folder: Path) -> None:
    print(f"{len(cache)} embeddings lie in {folder}")
    if len(cache.left_out):
        first = cache.left_out.iloc[0]
        print(f"{len(cache.left_out)} pictures are left out (left_out.csv), first {first.image_name}: {first.reason}")


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
            shown = "".join(f"; {image_name}: {caption}" for image_name, caption in list(written)[:1])
            tqdm.write(f"step {row.step}, epoch {row.epoch:.2f}: loss {row.loss:.3f}, validation loss "
                       f"{row.val_loss:.3f}{shown}")  # fmt: skip


def print_next_steps(run: "Run", *, images: Path, captions: Path, splits: Path | None) -> None:
    """Print the commands that caption, measure and report with a run."""
    photos = ["--images", images, "--captions", captions, *(["--splits", splits] if splits else [])]
    print("what to do next:")
    for arguments in (
        ["predict", "-C", run.folder, "PHOTO.jpg"],
        ["evaluate", "-C", run.folder, *photos, "--out", run.folder / "test"],
        ["report", run.folder, "--images", images],
    ):
        print(f"  clipxgpt {shlex.join(map(str, arguments))}")
