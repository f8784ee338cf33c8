"""Libraries that load and save models: their errors in one line, and no noise."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError
from .texts import first_line


@contextmanager
def one_line_errors(source: str, what: str) -> Iterator[None]:
    """Turn whatever the libraries raise while they load from `source` into one UserError that names the source."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # transformers, safetensors and the hub's client each raise their own
        if Path(source).is_dir():
            way_out = "give the folder of a whole model in the hub's layout, with model.safetensors"
        elif os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
            way_out = (
                "HF_HUB_OFFLINE is set and it is not in the local hub cache: give a local folder, or go online once"
            )
        else:
            way_out = "give a local folder, or check the name on huggingface.co and the internet connection"
        raise UserError(
            f"no {what} can be loaded from {source} ({first_line(error).rstrip('.')}); {way_out}"
        ) from error


@contextmanager
def quietly() -> Iterator[None]:
    """Silence transformers' progress bars and warnings about what is intended, such as a text tower left unread."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
