"""A captions file scored against references: the command `score`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.captions import read_captions, split_by_image, table_rows
from ..errors import UserError
from ..runtime.files import atomic_path, write_json
from .ptb_tokenizer import INSTALL, has_pycocoevalcap
from .scores import Scores, measure


def score_file(
    captions: str | Path, references: str | Path, *, out: str | Path, splits: str | Path | None = None,
    held_out: bool = False, against: str | Path | None = None, clip: str | None = None,
    images: str | Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Score a captions file (image_name, caption: what `evaluate` saves) and return what `out` then holds, a JSON.

    Beside it lies a CSV with every image's scores (`by_image`). references: a captions file, split as for training:
    training pictures are refused, and their captions show what was copied. splits: a file that says the splits.
    held_out: every picture of the references is held out, nothing is split. against: another captioner's file; both
    are scored on the pictures they share, and compared by a paired bootstrap. clip: the CLIP to measure CLIPScore by,
    on the pictures in the folder `images`.
    Raises UserError without pycocoevalcap, and on files that cannot be read, on training pictures and on fewer than
    two pictures to score.
    """
    if (clip is None) != (images is None):
        raise UserError("--clip and --images belong together: CLIPScore looks at the pictures; give both, or neither")
    if not has_pycocoevalcap():
        raise UserError(INSTALL)
    captions, references, out = Path(captions), Path(references), Path(out)
    table, left_out = read_captions(references)
    table = table.assign(split="test") if held_out else split_by_image(table, splits)
    training, rest = table[table.split == "train"], table[table.split != "train"]
    files = [captions] if against is None else [captions, Path(against)]
    written = {file: read_written(file) for file in files}
    for file, texts in written.items():
        _refuse_training(file, texts, training=set(training.image_name), source=splits or references)
    known = rest.groupby("image_name", sort=False).caption.apply(list)
    names = [name for name in written[captions] if name in known and all(name in texts for texts in written.values())]
    if len(names) < 2:
        raise UserError(
            f"pictures of {' and '.join(map(str, files))} with references in {references}: {len(names)}, but at least "
            "2 are needed to score; check that the files belong together"
        )

    shared = {file: [texts[name] for name in names] for file, texts in written.items()}
    wanted = [known[name] for name in names]
    scores = _measure_files(shared, wanted, training=training.caption, names=names, clip=clip, images=images)
    of_interest = rest.split.isin(rest.split[rest.image_name.isin(names)])  # the splits that were captioned
    asked = set(rest[of_interest].image_name)
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
            "in_one_file_only": sorted(set(written[captions]) ^ set(written[files[-1]])),
            **scores[captions].minus(scores[files[-1]]),
        }
    each = pd.DataFrame({"image_name": names, "caption": shared[captions]}).join(scores[captions].by_image())
    with atomic_path(by_image(out)) as partial:
        each.to_csv(partial, index=False)
    write_json(out, metrics)
    return metrics


def by_image(out: str | Path) -> Path:
    """Return the path of the CSV beside a metrics file, one row per image."""
    return Path(out).with_name(f"{Path(out).stem}_by_image.csv")


def read_written(path: str | Path) -> dict[str, str]:
    """Return the caption of each image in a CSV with the columns image_name and caption; an empty caption counts.

    Raises UserError on a file that is no such table, on a row without an image and on a second caption of one.
    """
    texts: dict[str, str] = {}
    for row, (fields, text) in enumerate(table_rows(Path(path), ("image_name", "caption"))):
        if fields is None or not fields["image_name"]:
            raise UserError(
                f"{path} row {row} is not a picture and a caption ({text[:60]!r}); give one of each in every row"
            )
        if fields["image_name"] in texts:
            raise UserError(f"{path} row {row} is a second caption of {fields['image_name']}; give one per picture")
        texts[fields["image_name"]] = fields["caption"]
    return texts


def _refuse_training(file: Path, texts: Mapping[str, str], *, training: set[str], source: str | Path) -> None:
    if leaked := [name for name in texts if name in training]:
        raise UserError(
            f"{file} captions training pictures of {source} ({len(leaked)}, such as {leaked[0]}): score held-out ones "
            "only (--splits FILE says which those are, --held-out that all are)"
        )


def _measure_files(
    written: Mapping[Path, Sequence[str]], references: Sequence[Sequence[str]], *, training: Iterable[str],
    names: Sequence[str], clip: str | None, images: str | Path | None,
) -> dict[Path, Scores]:  # fmt: skip
    """Return the scores of each file's captions of the same N pictures `names`."""
    if clip is None:
        return {file: measure(texts, references, training=training) for file, texts in written.items()}
    from .clipscore import ClipJudge, add_clip_scores  # here, because it loads torch, which other scores do without

    judge, scores = ClipJudge.load(clip), {}
    for file, texts in written.items():
        plain = measure(texts, references, training=training)
        scores[file] = add_clip_scores(
            plain, judge, images=images, names=names, written=texts, references=references, own=_own_clip(file)
        )
    return scores


def _own_clip(file: Path) -> str | None:
    """Return the weights_sha256 of the CLIP behind a captions file, if `evaluate` left the embeddings beside it."""
    from ..data.embedding_cache import FINGERPRINT

    fingerprint = file.parent / "embeddings" / FINGERPRINT
    return json.loads(fingerprint.read_text(encoding="utf-8"))["weights_sha256"] if fingerprint.exists() else None
