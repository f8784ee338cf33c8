"""One HTML file about a run, to share: captions beside their references, scores, curves, config, versions.

The page loads nothing from outside and runs no code: pictures are inside it, and every text is escaped.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from ..data.images import picture_folder
from ..errors import UserError
from ..plots.base import png
from ..plots.training import plot_loss_and_lr
from ..runtime.files import write_text
from ..runtime.model_folders import read_run_config
from ..training.run import HISTORY, Run
from ..ui.html import data_url
from .evaluations import as_text, one_line, read_evaluations, spaced

SAMPLES = 6  # validations whose sample captions are shown, evenly spaced from the first to the last


def write_report(folder: str | Path, out: str | Path | None = None, *, images: str | Path | None = None) -> Path:
    """Save a report on the run in `folder` and return its path.

    out: the file, by default report.html in the run's folder. images: the folder of the pictures in captions.csv, by
    default the one that the evaluation recorded. The report lists what the run lacks. Raises UserError if `folder` is
    no run or `images` no folder.
    """
    run = Run(Path(folder))
    config, missing = read_run_config(run.folder), list[str]()
    if config is None:
        raise UserError(f"{folder} holds no config.json: give the folder of a run, the --out of `clipxgpt train`")
    if images is not None:
        picture_folder(images)
    out = Path(out) if out else run.folder / "report.html"
    evaluations = read_evaluations(run.folder, images, missing)
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
        missing.append(f"history.csv: {one_line(error)}")
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


def _samples(run: Run, missing: list[str]) -> dict[str, Any]:
    """Return the captions of the same pictures at several steps of training: {names, rows: [(step, captions)]}."""
    try:
        table = run.samples()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        missing.append(f"samples.jsonl: {one_line(error)}")
        return {"names": [], "rows": []}
    places = sorted({round(place * (len(table) - 1) / (SAMPLES - 1)) for place in range(SAMPLES)}) if len(table) else []
    rows = [(step, list(captions)) for step, captions in zip(table.index[places], table.values[places], strict=True)]
    return {"names": list(table.columns), "rows": rows}


def _table(part: Any) -> list[tuple[str, str]]:
    """Return a part of config.json as (name, value), both as text."""
    return [(spaced(name), as_text(value)) for name, value in part.items()] if isinstance(part, dict) else []
