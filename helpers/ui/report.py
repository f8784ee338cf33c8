"""One HTML file about a run, to share: curves, scores, captions with their pictures, config, versions.

The page loads nothing from outside and runs no code: pictures are inside it, and every text is escaped.
"""

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined
from PIL import Image

from ..data.images import open_picture, picture_folder, picture_path
from ..errors import UserError
from ..evaluation.scores import INTERVAL
from ..plots.base import SMALL, png
from ..plots.training import plot_loss_and_lr
from ..runtime.files import write_text
from ..runtime.texts import undefused
from ..training.run import HISTORY, Run
from .html import data_url, picture_url

SHOWN = 24  # captions in the gallery
SAMPLES = 6  # validations whose sample captions are shown, evenly spaced from the first to the last
THUMB = 288  # pixels; the longest side of a picture in the gallery


@dataclass
class Evaluation:
    """The metrics.json and captions.csv of one folder, ready for the page.

    place: the folder's name, empty for the run's own. scores: (name, value, interval), all as text. gallery: the first
    captions as {name, caption, src}. captions: how many there are.
    """

    place: str
    scores: list[tuple[str, str, str]] = field(default_factory=list)
    gallery: list[dict[str, str]] = field(default_factory=list)
    captions: int = 0


def write_report(folder: str | Path, out: str | Path | None = None, *, images: str | Path | None = None) -> Path:
    """Save a report on the run in `folder` and return its path.

    out: the file, by default report.html in the run's folder. images: the folder of the pictures in captions.csv;
    without it the captions have no pictures. The report lists what the run lacks. Raises UserError if `folder` is no
    run or `images` no folder.
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
    """Return the evaluations in the run's folder and in the folders directly inside it."""
    found = []
    for place in [folder, *sorted(path for path in folder.glob("[!.]*") if path.is_dir())]:
        evaluation = Evaluation("" if place == folder else place.name)
        if (place / "metrics.json").exists():
            try:
                evaluation.scores = _scores(_read_json(place / "metrics.json"))
            except UserError as error:
                missing.append(str(error))
        if (place / "captions.csv").exists():
            missing += _fill_gallery(evaluation, place / "captions.csv", images)
        if evaluation.scores or evaluation.gallery:
            found.append(evaluation)
    if not found:
        missing.append("metrics.json and captions.csv: `clipxgpt evaluate` writes both, with --out this run's folder")
    elif images is None and any(evaluation.gallery for evaluation in found):
        missing.append("the pictures of captions.csv: give their folder with --images")
    return found


def _scores(metrics: dict[str, Any], before: str = "") -> list[tuple[str, str, str]]:
    """Return (name, value, interval) of each metric; the interval of a score stands in the score's own line."""
    lines = []
    for name, value in metrics.items():
        if isinstance(value, dict):
            lines += _scores(value, f"{before}{_spaced(name)}: ")
        elif not (name.endswith(INTERVAL) and name.removesuffix(INTERVAL) in metrics):
            interval = metrics.get(f"{name}{INTERVAL}")
            between = ", ".join(_as_text(end) for end in interval) if isinstance(interval, list) else ""
            lines.append((f"{before}{_spaced(name)}", _as_text(value), between and f"[{between}]"))
    return lines


def _fill_gallery(evaluation: Evaluation, file: Path, images: str | Path | None) -> list[str]:
    """Add the first captions of a captions.csv, with the pictures that can be read; return what is missing."""
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)[["image_name", "caption"]]
    except (ValueError, KeyError) as error:
        return [f"{file}: {_one_line(error)}"]
    evaluation.captions, unread = len(table), []
    for row in table.head(SHOWN).itertuples():
        card = {"name": row.image_name, "caption": row.caption, "src": ""}
        if images is not None:
            try:
                card["src"] = _thumb(open_picture(picture_path(images, undefused(row.image_name))))
            except UserError as error:
                unread.append(str(error))
        evaluation.gallery.append(card)
    return [f"{len(unread)} pictures of {file.name}, the first because: {unread[0]}"] if unread else []


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
    """Return a value as text: a float with four digits, all else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _thumb(picture: Image.Image) -> str:
    """Return a picture, reduced to THUMB pixels, as the `src` of an `img`: a drawn one as a PNG, a photo as a JPEG."""
    picture.thumbnail((THUMB, THUMB))
    return picture_url(picture, "png" if max(picture.size) <= SMALL else "jpeg", quality=80)


def _one_line(error: Exception) -> str:
    """Return an error's message on one line, or its type's name if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
