"""A captions file, scored against references: what the command `score` does."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.captions import read_captions, split_by_image, table_rows
from ..data.embedding_cache import FINGERPRINT
from ..errors import UserError
from ..runtime.files import atomic_path, write_json
from .clipscore import ClipJudge, add_clip_scores
from .ptb_tokenizer import INSTALL
from .scores import COCO, Scores, measure


def score(
    captions: Path, references: Path, out: Path, splits: Path | None = None, held_out: bool = False,
    against: Path | None = None, clip: str | None = None, images: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Score `captions` (image_name, caption: what `evaluate` writes) and return what `out` then holds, a JSON.

    Beside it lies a CSV with every image's scores (`by_image`). references: a captions file, split as for training:
    training pictures are refused, and their captions show what was copied. held_out: every picture of the references is
    held out, nothing is split. against: another captioner's file; both are scored on the pictures they share, and
    compared by a paired bootstrap. clip: whose CLIPScore to measure, on the pictures in `images`.
    Raises UserError on files that are none, on training pictures, on fewer than two pictures to score, and without
    pycocoevalcap.
    """
    if (clip is None) != (images is None):
        raise UserError("--clip and --images belong together: CLIPScore looks at the pictures; give both, or neither")
    table, left_out = read_captions(references)
    table = table.assign(split="test") if held_out else split_by_image(table, splits)
    training, rest = table[table.split == "train"], table[table.split != "train"]
    files = [captions] if against is None else [captions, against]
    written = {file: read_written(file) for file in files}
    for file, texts in written.items():
        _refuse_training(file, texts, set(training.image_name), splits or references)
    known = rest.groupby("image_name", sort=False).caption.apply(list)
    names = [name for name in written[captions] if name in known and all(name in texts for texts in written.values())]
    if len(names) < 2:
        raise UserError(
            f"{len(names)} pictures of {' and '.join(map(str, files))} have references in {references}, but 2 are the "
            "least that can be scored; check that the files belong together"
        )

    wanted, judge = [known[name] for name in names], clip and ClipJudge.load(clip)
    scores = {file: _scores(file, texts, names, wanted, training, judge, images) for file, texts in written.items()}
    asked = set(rest[rest.split.isin(rest.split[rest.image_name.isin(names)])].image_name)
    metrics = {
        "captions": str(captions),
        "images": len(names),
        "references": sum(map(len, wanted)),
        "unusable_rows_of_references": len(left_out),
        "captions_without_references": [name for name in written[captions] if name not in known],
        "references_without_caption": sorted(asked - set(written[captions])),
        **scores[captions].as_json(),
    }
    if against is not None:
        metrics["against"] = {
            "captions": str(against),
            "in_one_file_only": sorted(set(written[captions]) ^ set(written[against])),
            **scores[captions].minus(scores[against]),
        }
    texts = [written[captions][name] for name in names]
    with atomic_path(by_image(out)) as partial:
        pd.DataFrame({"image_name": names, "caption": texts}).join(scores[captions].by_image()).to_csv(
            partial, index=False
        )
    write_json(out, metrics)
    return metrics


def by_image(out: Path) -> Path:
    """The CSV beside a metrics file."""
    return out.with_name(f"{out.stem}_by_image.csv")


def read_written(path: Path) -> dict[str, str]:
    """The caption of each image; an empty one is a caption too. Raises UserError on a row that is none, or a second."""
    texts: dict[str, str] = {}
    for row, (fields, text) in enumerate(table_rows(path, ("image_name", "caption"))):
        if fields is None or not fields["image_name"]:
            raise UserError(
                f"{path} row {row} is no picture and caption ({text[:60]!r}); give one of each in every row"
            )
        if fields["image_name"] in texts:
            raise UserError(
                f"{path} row {row} is a second caption of {fields['image_name']}; give one for each picture"
            )
        texts[fields["image_name"]] = fields["caption"]
    return texts


def _refuse_training(file: Path, texts: dict[str, str], training: set[str], source: Path) -> None:
    if leaked := [name for name in texts if name in training]:
        raise UserError(
            f"{file} captions {len(leaked)} training pictures of {source}, such as {leaked[0]}: score held-out ones "
            "only (--splits FILE says which those are, --held-out that all are)"
        )


def _scores(
    file: Path, texts: dict[str, str], names: list[str], references: list[list[str]], training: pd.DataFrame,
    judge: ClipJudge | None, images: Path | None,
) -> Scores:  # fmt: skip
    captions = [texts[name] for name in names]
    scores = measure(captions, references, training.caption)
    if scores.not_measured.get(COCO[0]) == INSTALL:
        raise UserError(INSTALL)
    if judge is None:
        return scores
    cache = file.parent / "embeddings" / FINGERPRINT  # `evaluate` leaves the embeddings beside the captions
    own = json.loads(cache.read_text(encoding="utf-8"))["weights_sha256"] if cache.exists() else None
    return add_clip_scores(scores, judge, images, names, captions, references, own)
