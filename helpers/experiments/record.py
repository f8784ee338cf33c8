"""The record beside a results table: by which calls, settings, data, versions and machine it was made, and of what.

It is the JSON of the same name. Keys: calls, one for each command and environment that added rows;
varied, the columns that tell the arms apart; seeds; settings, what all arms share; data_sha256; trainings, what each
is in this table, by its name. A training that is an arm of several tables has the same name in each.
"""

import os
import platform
from pathlib import Path
from typing import Any

import torch
import transformers

from ..errors import UserError
from ..runtime.files import read_object, write_json


def record_file(table: str | Path) -> Path:
    """Return the path of the record of a CSV."""
    return Path(table).with_suffix(".json")


def read_record(table: str | Path) -> dict[str, Any]:
    """Return the record of a CSV, empty if there is none. Raises UserError if it is damaged."""
    file = record_file(table)
    try:
        return read_object(file) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error}), so it is not known what the rows in {table} are of: name "
                        "another file; finished runs are not trained again") from error  # fmt: skip


def write_record(
    table: str | Path, *, call: dict[str, Any], seeds: set[int], trainings: dict[str, str], **fixed: Any
) -> None:
    """Write or extend the record of a CSV.

    call: as `describe_call` returns it. seeds: of all rows. trainings: {name: what it is}.
    fixed: what holds for the whole table.
    """
    found = read_record(table)
    calls = found.get("calls", [])
    write_json(record_file(table), {
        "calls": calls if call in calls else [*calls, call],
        "seeds": sorted(seeds),
        **fixed,
        "trainings": found.get("trainings", {}) | trainings,
    })  # fmt: skip


def describe_call(command: str, *, threads: int) -> dict[str, Any]:
    """Return the command, the versions and this machine. threads: CPU threads that a training computes on."""
    return {
        "command": command,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "card": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def cpu_name() -> str:
    """Return the processor's name as Linux gives it, or what Python knows of it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name") and ": " in line]
    return names[0] if names else platform.processor()
