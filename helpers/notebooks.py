"""Run the notebooks one after the other with papermill, and sum up what they leave in the run folder."""

import json
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from .errors import UserError
from .runtime.files import atomic_path

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def run_series(out: Path) -> None:
    """Execute every notebook in order and save the executed copies in `out/notebooks`.

    out: the run folder, an absolute path; each notebook with a parameter `RUN` gets this value for it. Raises UserError
    if papermill is not installed, if there are no notebooks, or if a notebook fails; the message then names the cell.
    SIGTERM ends it as Ctrl-C does, by KeyboardInterrupt; the notebook's kernel ends with it, and no half copy stays.
    """
    try:
        import papermill
    except ImportError as error:
        raise UserError("papermill is not installed: pip install 'papermill>=2.6', or use `make setup`") from error
    notebooks = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    if not notebooks:
        raise UserError(f"{NOTEBOOKS} holds no notebooks: run this command in a clone of the project")
    (out / "notebooks").mkdir(parents=True, exist_ok=True)
    for number, notebook in enumerate(notebooks, start=1):
        print(f"[{number}/{len(notebooks)}] {notebook.name}", flush=True)
        try:
            takes_run = "RUN" in papermill.inspect_notebook(notebook)
            # papermill warns of the unfinished copy's name, which does not end as a notebook's does.
            with (
                sigterm_as_ctrl_c(),
                atomic_path(out / "notebooks" / notebook.name) as partial,
                warnings.catch_warnings(),
            ):
                warnings.filterwarnings("ignore", message="The specified file")
                papermill.execute_notebook(
                    notebook,
                    partial,
                    parameters={"RUN": str(out)} if takes_run else {},
                    cwd=NOTEBOOKS,
                    progress_bar=True,
                    extra_arguments=["--log-level=CRITICAL"],  # an interrupted kernel logs tracebacks as errors
                )
        except papermill.PapermillExecutionError as error:
            raise UserError(
                f"{notebook.name} failed in cell {error.exec_count} with {error.ename}: {error.evalue}"
            ) from error


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, so that what was begun is cleaned up. Only the main thread can set that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def summary(out: Path) -> str:
    """Return a text that lists the files in the run folder `out` and the results of the series.

    Reads history.csv and metrics.json, which notebooks 04 and 05 save. Raises UserError if metrics.json lacks a figure.
    """
    history = pd.read_csv(out / "history.csv")
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    if "picture_tells_per_caption" not in metrics:
        raise UserError(f"{out / 'metrics.json'} is of an earlier version: run notebook 05 again")
    tells, (low, high) = metrics["picture_tells_per_caption"], metrics["picture_tells_per_caption_95_interval"]
    results = [
        ("held-out captions with every fact right", f"{metrics['correct']:.3f}"),
        ("the same with shuffled embeddings", f"{metrics['correct_shuffled']:.3f}"),
        (
            "what the picture tells, nats per caption",
            f"{tells:.2f} [{low:.2f}, {high:.2f}]",
        ),
        ("distinct captions", f"{metrics['distinct_captions']} for {metrics['images']} pictures"),
        ("last validation loss, nats per token", f"{history.val_loss.dropna().iloc[-1]:.3f}"),
        ("training", f"{history.step.iloc[-1]} steps in {history.elapsed_seconds.iloc[-1]:.0f} s"),
    ]
    files = [
        ("captioner/", "the captioner, for CaptionWriter.load and clipxgpt predict -C"),
        ("history.csv, loss_lr.png", "loss and learning rate, as numbers and as a figure"),
        ("captions.csv, metrics.json", "the held-out captions and their scores"),
        ("notebooks/", "the executed notebooks"),
    ]
    width = max(len(name) for name, _ in (*results, *files)) + 2
    lines = [f"{out}:", *(f"  {name:<{width}}{what}" for name, what in files), ""]
    return "\n".join([*lines, *(f"  {name:<{width}}{value}" for name, value in results)])
