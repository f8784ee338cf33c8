"""The evaluations in a run's folder, ready for a page: the headline in words, tables of scores, captions to look at."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.dataset import open_data
from ..data.images import open_picture, picture_path
from ..errors import UserError
from ..evaluation.evaluate import PICTURES
from ..evaluation.scores import GROUPS, INTERVAL
from ..runtime.files import read_object
from ..runtime.texts import undefused
from ..ui.html import small_url

SHOWN = 24  # captions in the gallery
THUMB = 288  # pixels; the longest side of a picture in the gallery
# Its pictures and references stand in for those that a run of the drawn world did not record.
WORLD = Path("data/drawn")
HEADLINE = {  # scores of the headline, by their keys in metrics.json, in this order
    "cider": "CIDEr {}, which counts what a caption shares with its references, rare words more",
    "bleu_4": "BLEU-4 {}, which counts shared runs of four words",
    "correct": "every fact right in {} of the captions",
}


@dataclass
class Evaluation:
    """The metrics.json and captions.csv of one folder, ready for the page.

    place: the folder's name, empty for the run's own. headline: its scores in words. tables: {heading: rows of (name,
    value, interval)}, all as text. gallery: the first captions as {name, caption, src, references}. captions: how many
    there are.
    """

    place: str
    headline: str = ""
    tables: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    gallery: list[dict[str, Any]] = field(default_factory=list)
    captions: int = 0


def read_evaluations(folder: Path, images: str | Path | None, missing: list[str]) -> list[Evaluation]:
    """Return the evaluations in the run's folder and in the folders directly inside it; the one in test/ leads."""
    found = []
    inside = sorted(path for path in folder.glob("[!.]*") if path.is_dir())
    for place in [folder, *sorted(inside, key=lambda path: path.name != "test")]:
        evaluation = Evaluation("" if place == folder else place.name)
        if (place / "metrics.json").exists():
            try:
                metrics = read_own(place / "metrics.json")
                evaluation.headline, evaluation.tables = _headline(metrics), _tables(metrics)
            except UserError as error:
                missing.append(str(error))
        if (place / "captions.csv").exists():
            _fill_gallery(evaluation, place, images, missing)
        if evaluation.tables or evaluation.gallery:
            found.append(evaluation)
    if not found:
        missing.append("metrics.json and captions.csv: `clipxgpt evaluate` writes both, --out in this run's folder")
    return found


def _headline(metrics: dict[str, Any]) -> str:
    """Return the first scores in words; empty if there are none of HEADLINE."""
    said = []
    for key, words in HEADLINE.items():
        if isinstance(value := metrics.get(key), int | float):
            interval = metrics.get(key + INTERVAL)
            between = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if _is_interval(interval) else ""
            said.append(words.format(f"{value:.0%}" if key == "correct" else f"{value:.2f}{between}"))
    if not said:
        return ""
    start = f"On {metrics['images']:,} pictures" if isinstance(metrics.get("images"), int) else "Scores"
    decoding = f", {metrics['decoding']}" if isinstance(metrics.get("decoding"), str) else ""
    return f"{start}{decoding}: {'; '.join(said)}."


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(end, int | float) for end in value)


def _tables(metrics: dict[str, Any]) -> dict[str, list[tuple[str, str, str]]]:
    """Return the metrics as tables under the headings of GROUPS; what these do not name comes last."""
    tables: dict[str, list[tuple[str, str, str]]] = {}
    known = {key: (heading, name) for heading, names in GROUPS.items() for key, name in names.items()}
    for key, value in metrics.items():
        if key.endswith(INTERVAL) and key.removesuffix(INTERVAL) in metrics:
            continue
        heading, name = known.get(key, ("Other", spaced(key)))
        interval = metrics.get(key + INTERVAL)
        between = f"[{', '.join(as_text(end) for end in interval)}]" if isinstance(interval, list) else ""
        rows = [(name, value)]
        if isinstance(value, dict):
            heading = name[:1].upper() + name[1:]
            rows = [(known.get(inner, ("", spaced(inner)))[1], each) for inner, each in value.items()]
        tables.setdefault(heading, []).extend((name, as_text(each), between) for name, each in rows)
    order = [*GROUPS, *tables]
    return dict(sorted(tables.items(), key=lambda table: order.index(table[0])))


def _fill_gallery(evaluation: Evaluation, place: Path, images: str | Path | None, missing: list[str]) -> None:
    """Add the first captions of a captions.csv beside their references, with the pictures that can be read."""
    file = place / "captions.csv"
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)[["image_name", "caption"]]
    except (ValueError, KeyError) as error:
        missing.append(f"{file}: {one_line(error)}")
        return
    evaluation.captions, unread = len(table), []
    table = table.head(SHOWN).apply(lambda column: column.map(undefused))
    recorded, references = _sources(place, list(table.image_name))
    images = images or recorded
    for row in table.itertuples():
        card = {"name": row.image_name, "caption": row.caption, "src": "", "references": references(row.image_name)}
        if images is not None:
            try:
                card["src"] = small_url(open_picture(picture_path(images, row.image_name)), THUMB)
            except UserError as error:
                unread.append(str(error))
        evaluation.gallery.append(card)
    if images is None:
        missing.append("the pictures of captions.csv: give their folder with --images")
    elif unread:
        missing.append(f"{len(unread)} pictures of {file.name}, the first because: {unread[0]}")


def _sources(place: Path, names: list[str]) -> tuple[Path | None, Callable[[str], list[str]]]:
    """Return the folder of an evaluation's pictures, None if it is not known or gone, and their references by name."""
    try:
        recorded = read_own(place / PICTURES)
    except (OSError, UserError):
        if not all((WORLD / "flickr30k_images" / name).is_file() for name in names[:1]):
            return None, lambda _name: []
        captions = open_data(WORLD / "flickr30k_images", WORLD / "results.csv").captions
        by_name = captions[captions.image_name.isin(names)].groupby("image_name").caption.apply(list)
        return WORLD / "flickr30k_images", lambda name: by_name.get(name, [])
    folder, references = recorded.get("images"), recorded.get("references")
    folder = Path(folder) if isinstance(folder, str) and Path(folder).is_dir() else None
    references = references if isinstance(references, dict) else {}

    def known(name: str) -> list[str]:
        return [str(text) for text in references[name]] if isinstance(references.get(name), list) else []

    return folder, known


def read_own(file: Path) -> dict[str, Any]:
    """Read a JSON object that a run or an evaluation left. Raises UserError if the file holds none."""
    try:
        return read_object(file)
    except ValueError as error:
        raise UserError(f"{file} is no JSON object ({one_line(error)}): give a complete run's folder") from error


def spaced(name: str) -> str:
    return name.replace("_", " ")


def as_text(value: Any) -> str:
    """Return a value as text: a float with four digits, a whole number with separators, the parts of a list or dict."""
    if isinstance(value, dict):
        return ", ".join(f"{spaced(name)} {as_text(each)}" for name, each in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(as_text, value))}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def one_line(error: Exception) -> str:
    """Return an error's message on one line, or its type's name if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
