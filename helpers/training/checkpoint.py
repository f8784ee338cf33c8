"""Checkpoints: only what trains, saved whole or not at all, without pickle, and exact when loaded again.

    checkpoints/step-00000200/model.safetensors       the tensors that train, after 200 steps
                              optimizer.safetensors   their moments
                              state.json              steps done, gradient scaler, the loss since the history's last row

Batches and dropout are functions of the step (data/batches.py, training/optimizer.py), so a checkpoint needs neither a
position in the data nor the state of a random generator.
"""

import errno
import json
import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ..errors import NoRoomError, UserError
from ..runtime.files import atomic_path, read_json, sweep_partial
from ..runtime.texts import first_line

MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # AdamW's, of each parameter


class Captured(NamedTuple):
    """Copies on the CPU of the tensors that train, by name, and of their moments, named `NAME/exp_avg` and so on."""

    tensors: dict[str, torch.Tensor]
    moments: dict[str, torch.Tensor]


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, state: dict[str, Any], keep: int = 2
) -> Path:
    """Save `folder/step-NNNNNNNN`, then remove the ones before it, except the best and the newest `keep`.

    step: the number of steps done. state: what else to remember; its `val_loss`, if there is one, decides which
    checkpoint is the best. Raises UserError if the disk is full, or a number is not finite.
    """
    path = folder / f"step-{step:08d}"
    captured = capture(model, optimizer)
    if wrong := _not_finite(captured):
        raise UserError(
            f"{wrong} after step {step}, of which no checkpoint is saved: those before it still stand; the usual way "
            "out is a new run with lower learning rates (--mapper-lr, --gpt2-lr)"
        )
    try:
        with atomic_path(path) as partial:
            partial.mkdir(parents=True)
            save_file(captured.tensors, partial / "model.safetensors")
            save_file(captured.moments, partial / "optimizer.safetensors")
            (partial / "state.json").write_text(json.dumps({"step": step, **state}, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        size = sum(tensor.nbytes for part in captured for tensor in part.values())
        raise not_written(
            error, f"no checkpoint of step {step}", folder, size=size,
            rest="the checkpoints before it still stand; make room and go on with --resume",
        ) from error  # fmt: skip
    so_far = [
        other for other in checkpoints(folder) if other.name <= path.name
    ]  # `load_newest` found later ones broken
    for old in set(so_far[:-keep]) - {best_of(so_far)}:
        shutil.rmtree(old)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def best_of(paths: list[Path]) -> Path | None:
    """Return the checkpoint with the lowest finite validation loss, the earliest of equals; None if there is none."""
    losses = {path: _state_of(path).get("val_loss") for path in paths}
    measured = {path: loss for path, loss in losses.items() if _is_finite(loss)}
    return min(measured, key=measured.__getitem__, default=None)


def newest_step(folder: Path) -> int | None:
    """Return the steps done at the newest whole checkpoint, by its files' headers alone; None if there is none."""
    for path in reversed(checkpoints(folder)):
        try:
            for name in ("model.safetensors", "optimizer.safetensors"):
                with safe_open(_file(path / name), "pt"):
                    pass  # a file that was cut short does not open
        except (OSError, SafetensorError):
            continue
        if state := _state_of(path):
            return state["step"]
    return None


def load_newest(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any] | None, list[str]]:
    """Load the newest whole checkpoint into model and optimizer.

    Returns its state, or None if there is none, and a line for each checkpoint that was passed over, because it is
    damaged or holds numbers that are not finite. Raises UserError if one holds other tensors than this model trains.
    """
    passed_over = [f"{name} was half written and has been removed" for name in sweep_partial(folder)]
    for path in reversed(checkpoints(folder)):
        try:
            captured = Captured(*(load_file(_file(path / f"{name}.safetensors")) for name in ("model", "optimizer")))
            state = _read_state(path)
        except (OSError, SafetensorError, ValueError) as error:
            passed_over.append(f"{path} is not whole ({first_line(error)}) and is passed over")
            continue
        _check_shapes(path, captured.tensors, trained_tensors(model))
        if wrong := _what_is_wrong(captured, model):
            passed_over.append(f"{path} is damaged ({wrong}) and is passed over")
            continue
        restore(model, optimizer, captured)
        return state, passed_over
    return None, passed_over


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what training changes or takes from the data: trainable parameters, mean and spread of embeddings."""
    trained = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {**trained, "embedding_mean": model.embedding_mean, "embedding_std": model.embedding_std}


def capture(model: nn.Module, optimizer: torch.optim.Optimizer) -> Captured:
    """Copy what trains, and its moments."""
    moments = {
        f"{name}/{key}": value.reshape(1) if value.ndim == 0 else value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    parts = (trained_tensors(model), moments)
    return Captured(*({key: value.detach().cpu().clone() for key, value in part.items()} for part in parts))


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, captured: Captured) -> None:
    """Set model and optimizer back to the state in which `capture` found them."""
    model.load_state_dict(captured.tensors, strict=False)
    optimizer.state.clear()
    parameters = dict(model.named_parameters())
    for key, value in captured.moments.items():
        name, moment = key.rsplit("/", 1)
        parameter = parameters[name]
        value = value.reshape(()) if moment == "step" else value
        optimizer.state[parameter][moment] = value.to(parameter.device, copy=True)


def _check_shapes(path: Path, found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    for name in sorted(set(found) ^ set(wanted)):
        where = "only in the checkpoint" if name in found else "missing in the checkpoint"
        raise UserError(f"{path} is of another model: {name} is {where}; use the config it was trained with")
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            raise UserError(
                f"{path} is of another model: {name} is {list(tensor.shape)} there, {list(wanted[name].shape)} here; "
                "use the config it was trained with"
            )


def _what_is_wrong(captured: Captured, model: nn.Module) -> str | None:
    """Return in words which tensor is not finite, of another type, or no moment of what trains; None if none is."""
    for name, tensor in trained_tensors(model).items():
        if name in captured.tensors and captured.tensors[name].dtype != tensor.dtype:
            return f"{name} is {captured.tensors[name].dtype}, not {tensor.dtype}"
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for key, value in captured.moments.items():
        name, _, moment = key.rpartition("/")
        if name not in parameters or moment not in MOMENTS:
            return f"{key} is no moment of what trains"
        if value.shape != ((1,) if moment == "step" else parameters[name].shape):
            return f"{key} is {list(value.shape)}"
        if value.dtype != (torch.float32 if moment == "step" else parameters[name].dtype):
            return f"{key} is {value.dtype}"
        if moment != "exp_avg" and (value < 0).any():
            return f"{key} is negative"
    counts = {moment: sum(key.endswith(f"/{moment}") for key in captured.moments) for moment in MOMENTS}
    if len({*counts.values()}) > 1:
        return f"its moments are not complete: {counts}"
    return _not_finite(captured)


def _not_finite(captured: Captured) -> str | None:
    every = (item for part in captured for item in part.items())
    return next((f"{name} is not finite" for name, tensor in every if not tensor.isfinite().all()), None)


def load_best(path: Path, model: nn.Module) -> str | None:
    """Load a checkpoint's tensors into the model; return in words why that cannot be done, None if it was."""
    try:
        tensors = load_file(_file(path / "model.safetensors"))
    except (OSError, SafetensorError) as error:
        return f"{path} is not whole ({first_line(error)})"
    _check_shapes(path, tensors, trained_tensors(model))
    if wrong := _what_is_wrong(Captured(tensors, {}), model):
        return f"{path} is damaged ({wrong})"
    model.load_state_dict(tensors, strict=False)
    return None


def _file(path: Path) -> Path:
    """Return `path`. Raises OSError if it is no file: opening a pipe would wait forever."""
    if not path.is_file():
        raise OSError(f"{path.name} is no file")
    return path


def _read_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint's state.json. Raises OSError or ValueError if it is broken or of another form."""
    state = read_json(path / "state.json")
    if not isinstance(state, dict) or type(state.get("step")) is not int or f"step-{state['step']:08d}" != path.name:
        raise ValueError("state.json has not its step")
    meter = state.get("meter", {})
    numbers = isinstance(meter, dict) and meter.keys() <= {"loss", "steps"} and all(map(_is_finite, meter.values()))
    if not numbers or type(meter.get("steps", 0)) is not int or meter.get("steps", 0) < 0:
        raise ValueError("state.json has no loss since the history's last row")
    scaler = state.get("scaler") or {}
    if not isinstance(scaler, dict) or not all(map(_is_finite, (state.get("elapsed", 0.0), *scaler.values()))):
        raise ValueError("state.json has values of other types")
    return state


def _state_of(path: Path) -> dict[str, Any]:
    """Return the contents of a checkpoint's state.json, {} if it is broken."""
    try:
        return _read_state(path)
    except (OSError, ValueError):
        return {}


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def not_written(error: Exception, what: str, folder: Path, *, size: int, rest: str) -> UserError:
    """Return the error that says why `what`, of so many bytes, could not be written to `folder`, and then `rest`."""
    full = getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(folder).free < size
    why = "no space left on the device" if full else first_line(error)
    return (NoRoomError if full else UserError)(f"{what} could be written to {folder} ({why}): {rest}")
