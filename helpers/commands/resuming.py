"""Config and inputs that `train --resume` takes from the run, so that a flag not given again changes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import FREE, Config
from ..errors import UserError
from ..runtime.files import read_json, write_json
from ..runtime.model_folders import RUN_INPUTS, read_run_config
from .options import chosen_config


def resumed_config(
    run: Path, preset_name: str, values: dict[str, Any], *, say: Callable[[str], object] | None = None
) -> Config:
    """Return the config of the run, or the chosen one if no run is there.

    say: gets a line if the run's values are others than those of the preset. Raises UserError if a value that was given
    is not the run's.
    """
    chosen, found = chosen_config(preset_name, values), read_run_config(run)
    if found is None:
        return chosen
    own = Config.from_dict(found["config"])
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        if name not in FREE and getattr(own, name) != value:
            raise UserError(f"{run} holds a run with {name} {getattr(own, name)!r}, here it is {value!r}: a run goes "
                            "on with its own config; use that value, or name another folder")  # fmt: skip
    others = [
        f"{name} {value!r}" for name, value in own.to_dict().items()
        if name not in FREE and getattr(chosen, name) != value
    ]  # fmt: skip
    if others and say:
        say(f"{run} goes on with its own config, which differs from this command's in {', '.join(others)}")
    return own.with_values(**{name: value for name, value in given.items() if name in FREE})


def remembered_inputs(
    run: Path, given: dict[str, Path | None], reading: dict[str, str | bool | None]
) -> tuple[dict[str, Path | None], dict[str, str | bool | None]]:
    """Return where pictures, captions, splits and embeddings lie, and how they are read.

    What is not given is as in the run's last session.
    """
    try:
        found = read_json(run / RUN_INPUTS)
        paths = {name: Path(found[name]) for name, path in given.items() if path is None and found.get(name)}
        there = {name: path for name, path in paths.items() if path.exists()}
        read = {name: found[name] for name, value in reading.items() if not value and found.get(name)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # a run of before, or a damaged file
        return given, reading
    read = {name: value for name, value in read.items() if isinstance(value, bool if name == "follow_links" else str)}
    return given | there, reading | read


def remember_inputs(run: Path, inputs: dict[str, Path | None], reading: dict[str, str | bool | None]) -> None:
    """Record them in the run folder."""
    write_json(run / RUN_INPUTS, {name: path and str(path.resolve()) for name, path in inputs.items()} | reading)
