"""One HTML file about a run, to share: captions beside their references, scores, curves, config, versions.

The page loads nothing from outside and runs no code: pictures are inside it, and every text is escaped.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from ..data.dataset import open_data
from ..data.images import open_picture, picture_folder, picture_path
from ..errors import UserError
from ..evaluation.evaluate import PICTURES
from ..evaluation.scores import GROUPS, INTERVAL
from ..plots.base import png
from ..plots.training import plot_loss_and_lr
from ..runtime.files import write_text
from ..runtime.texts import undefused
from ..training.run import HISTORY, Run
from .html import data_url, small_url

SHOWN = 24  # captions in the gallery
SAMPLES = 6  # validations whose sample captions are shown, evenly spaced from the first to the last
THUMB = 288  # pixels; the longest side of a picture in the gallery
WORLD = Path(
    "data/drawn"
)  # its pictures and references stand in for those that a run of the drawn world did not record
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


def write_report(folder: str | Path, out: str | Path | None = None, *, images: str | Path | None = None) -> Path:
    """Save a report on the run in `folder` and return its path.

    out: the file, by default report.html in the run's folder. images: the folder of the pictures in captions.csv, by
    default the one that the evaluation recorded. The report lists what the run lacks. Raises UserError if `folder` is
    no run or `images` no folder.
    """
    run = Run(Path(folder))
    if not run.config_file.exists():
        raise UserError(f"{folder} holds no config.json: give the folder of a run, the --out of `clipxgpt train`")
    if images is not None:
        picture_folder(images)
    config, missing = _read_json(run.config_file), list[str]()
    out = Path(out) if out else run.folder / "report.html"
    evaluations = _evaluations(run.folder, images, missing)
    history = _history(run, missing)
    if not any(run.captioner.glob("*.safetensors")):
        missing.append("captioner/: training has not ended yet")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    )
    text = page.render(
        name=run.folder.resolve().name,
        made=f"{datetime.now():%d %B %Y, %H:%M}",
        numbers=_numbers(history),
        curve="" if history is None else _curve(history),
        evaluations=evaluations,
        samples=_samples(run, missing),
        tables={title: _table(config.get(part, {})) for title, part in
                (("Config", "config"), ("Training data", "data"), ("Versions", "versions"))},
        missing=missing,
    )  # fmt: skip
    write_text(out, text)
    return out


def _history(run: Run, missing: list[str]) -> pd.DataFrame | None:
    """Return the history as numbers; if it is empty or cannot be read, return None and add the reason to `missing`."""
    try:
        history = run.history()[HISTORY].astype(float)
    except (UserError, ValueError, KeyError) as error:
        missing.append(f"history.csv: {_one_line(error)}")
        return None
    if history.empty:
        missing.append("history.csv: it has no rows yet")
        return None
    return history


def _numbers(history: pd.DataFrame | None) -> list[tuple[str, str]]:
    """Return the training in a few numbers: (what, value)."""
    if history is None:
        return []
    last, validated = history.iloc[-1], history.val_loss.dropna()
    seconds = last.elapsed_seconds
    return [
        ("steps", f"{last.step:,.0f}"),
        ("epochs", f"{last.epoch:.3g}"),
        ("of training", f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"),
        ("captions per second", f"{history.captions_per_second.median():,.0f}"),
        ("lowest validation loss", f"{validated.min():.3f}" if len(validated) else "not measured"),
    ]


def _curve(history: pd.DataFrame) -> str:
    return data_url(png(plot_loss_and_lr(history), dpi=130), "image/png")


def _evaluations(folder: Path, images: str | Path | None, missing: list[str]) -> list[Evaluation]:
    """Return the evaluations in the run's folder and in the folders directly inside it; the one in test/ leads."""
    found = []
    inside = sorted(path for path in folder.glob("[!.]*") if path.is_dir())
    for place in [folder, *sorted(inside, key=lambda path: path.name != "test")]:
        evaluation = Evaluation("" if place == folder else place.name)
        if (place / "metrics.json").exists():
            try:
                metrics = _read_json(place / "metrics.json")
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
        heading, name = known.get(key, ("Other", _spaced(key)))
        interval = metrics.get(key + INTERVAL)
        between = f"[{', '.join(_as_text(end) for end in interval)}]" if isinstance(interval, list) else ""
        rows = [(name, value)]
        if isinstance(value, dict):
            heading = name[:1].upper() + name[1:]
            rows = [(known.get(inner, ("", _spaced(inner)))[1], each) for inner, each in value.items()]
        tables.setdefault(heading, []).extend((name, _as_text(each), between) for name, each in rows)
    order = [*GROUPS, *tables]
    return dict(sorted(tables.items(), key=lambda table: order.index(table[0])))


def _fill_gallery(evaluation: Evaluation, place: Path, images: str | Path | None, missing: list[str]) -> None:
    """Add the first captions of a captions.csv beside their references, with the pictures that can be read."""
    file = place / "captions.csv"
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)[["image_name", "caption"]]
    except (ValueError, KeyError) as error:
        missing.append(f"{file}: {_one_line(error)}")
        return
    evaluation.captions, unread = len(table), []
    table = table.head(SHOWN)
    recorded, references = _sources(place, list(table.image_name))
    images = images or recorded
    for row in table.itertuples():
        card = {"name": row.image_name, "caption": row.caption, "src": "", "references": references(row.image_name)}
        if images is not None:
            try:
                card["src"] = small_url(open_picture(picture_path(images, undefused(row.image_name))), THUMB)
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
        recorded = _read_json(place / PICTURES)
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


def _samples(run: Run, missing: list[str]) -> dict[str, Any]:
    """Return the captions of the same pictures at several steps of training: {names, rows: [(step, captions)]}."""
    try:
        table = run.samples()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        missing.append(f"samples.jsonl: {_one_line(error)}")
        return {"names": [], "rows": []}
    places = sorted({round(place * (len(table) - 1) / (SAMPLES - 1)) for place in range(SAMPLES)}) if len(table) else []
    rows = [(step, list(captions)) for step, captions in zip(table.index[places], table.values[places], strict=True)]
    return {"names": list(table.columns), "rows": rows}


def _read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises UserError if it holds none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({_one_line(error)}): give a complete run's folder") from error
    if not isinstance(value, dict):
        raise UserError(f"{file} is no JSON object: give a complete run's folder")
    return value


def _table(part: Any) -> list[tuple[str, str]]:
    """Return a part of config.json as (name, value), both as text."""
    return [(_spaced(name), _as_text(value)) for name, value in part.items()] if isinstance(part, dict) else []


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _as_text(value: Any) -> str:
    """Return a value as text: a float with four digits, a whole number with separators, all else as it is."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _one_line(error: Exception) -> str:
    """Return an error's message on one line, or its type's name if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
