"""A captions file scored against references: the command `score`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..captions.columns import NoColumnError
from ..captions.decoding import why_not_utf8
from ..captions.json_files import begins_like_json, image_ids
from ..captions.names import plain_name, same_pictures
from ..captions.read import read_captions, read_rows
from ..captions.splits import split_by_image
from ..errors import UserError
from ..runtime.files import atomic_path, home, read_object, write_json
from ..runtime.texts import defused, undefused
from ..words.ptb_tokenizer import INSTALL, has_pycocoevalcap
from .people import add_people_scores
from .scores import Scores, measure


def score_file(
    captions: str | Path, references: str | Path, *, out: str | Path, splits: str | Path | None = None,
    held_out: bool = False, against: str | Path | None = None, clip: str | None = None,
    images: str | Path | None = None, image_column: str | None = None, caption_column: str | None = None,
    coco_results: str | Path | None = None, people: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Score a captions file and return what `out` then holds, a JSON.

    The file has one caption per picture: what `evaluate` saves, or COCO's results JSON.

    Beside it lies a CSV with every image's scores (`by_image`). references: a captions file, split as for training:
    training pictures are refused, and their captions show what was copied. splits: a file that says the splits.
    held_out: every picture of the references is held out, nothing is split. against: another captioner's file; both
    are scored on the pictures they share, and compared by a paired bootstrap. clip: the CLIP to measure CLIPScore by,
    on the pictures in the folder `images`. image_column, caption_column: the columns' names, in the files that have
    them. coco_results: a file to write the scored captions to as COCO's results JSON. people: measure the people and
    objects that the captions name, too.
    Raises UserError without pycocoevalcap, and on files that cannot be read, on training pictures and on fewer than
    two pictures to score.
    """
    if (clip is None) != (images is None):
        raise UserError("--clip and --images belong together: CLIPScore looks at the pictures; give both, or neither")
    if not has_pycocoevalcap():
        raise UserError(INSTALL)
    captions, references, out = home(captions), home(references), home(out)
    columns = {"image_column": image_column, "caption_column": caption_column}
    table, left_out = read_captions(references, **columns)
    table = table.assign(split="test") if held_out else split_by_image(table, splits)
    training, rest = table[table.split == "train"], table[table.split != "train"]
    files = [captions] if against is None else [captions, home(against)]
    known_names = list(table.image_name.unique())
    written = {file: _by_reference(file, read_written(file, **columns), references, known_names) for file in files}
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
    if people:
        scores = {file: add_people_scores(each, written=shared[file], references=wanted)
                  for file, each in scores.items()}  # fmt: skip
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
    for column in ("image_name", "caption"):
        each[column] = each[column].map(defused)
    with atomic_path(by_image(out)) as partial:
        each.to_csv(partial, index=False)
    if coco_results is not None:
        ids = image_ids(references, known_names)
        write_json(coco_results, [{"image_id": ids.get(name, name), "caption": written[captions][name]}
                                  for name in names])  # fmt: skip
    write_json(out, metrics)
    return metrics


def by_image(out: str | Path) -> Path:
    """Return the path of the CSV beside a metrics file, one row per image."""
    return Path(out).with_name(f"{Path(out).stem}_by_image.csv")


def read_written(
    path: str | Path, *, image_column: str | None = None, caption_column: str | None = None
) -> dict[str, str]:
    """Return the caption of each image in a captions file with one per picture; an empty caption counts.

    In COCO's results the image's name is its image_id. Raises UserError on a file that is no such table, on a row
    without an image and on a second caption of one.
    """
    wanted, chosen = ("image_name", "caption"), {"image_name": image_column, "caption": caption_column}
    try:
        rows = list(read_rows(path, wanted, chosen))
    except NoColumnError:  # the columns are those of the references
        rows = list(read_rows(path, wanted))
    texts: dict[str, str] = {}
    for row in rows:
        fields = row.fields
        reason = why_not_utf8(row.text) or (fields and why_not_utf8("".join(fields.values())))
        if reason:
            raise UserError(f"{path} row {row.number} is {reason}")
        if fields is None or not fields["image_name"]:
            raise UserError(
                f"{path} row {row.number} is not a picture and a caption ({row.text[:60]!r}); give one of each in "
                "every row"
            )
        name = undefused(plain_name(fields["image_name"]))
        if name in texts:
            raise UserError(f"{path} row {row.number} is a second caption of {name}; give one per picture")
        texts[name] = undefused(fields["caption"])
    return texts


def _by_reference(file: Path, texts: Mapping[str, str], references: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the captions by the references' names of the pictures, which may be written as a path or an image_id."""
    same = same_pictures(texts, names)
    if begins_like_json(file):
        by_id = {str(number): name for name, number in image_ids(references, names).items()}
        same = {name: by_id[name] for name in texts if name in by_id} | same
    found: dict[str, str] = {}
    for name, caption in texts.items():
        known = same.get(name, name)
        if known in found:
            raise UserError(f"{file} has two captions of {known}, one of them as {name}; give one per picture")
        found[known] = caption
    return found


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
    try:
        return str(read_object(fingerprint)["weights_sha256"])
    except (OSError, ValueError, LookupError):  # none there, or one that is broken
        return None
