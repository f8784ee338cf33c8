"""Checkpoints: only what trains, saved whole or not at all, without pickle, and exact when loaded again.

    checkpoints/step-00000200/model.safetensors       the tensors that train, after 200 steps
                              optimizer.safetensors   their moments
                              state.json              steps done, gradient scaler, the loss since the history's last row

Batches and dropout are functions of the step (data/batches.py, training/optimizer.py), so a checkpoint needs neither a
position in the data nor the state of a random generator.
"""

import errno
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ..errors import UserError
from ..runtime.files import atomic_path, sweep_partial


class Captured(NamedTuple):
    """Copies on the CPU of the tensors that train, by name, and of their moments, named `NAME/exp_avg` and so on."""

    tensors: dict[str, torch.Tensor]
    moments: dict[str, torch.Tensor]


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, state: dict[str, Any], keep: int = 2
) -> Path:
    """Save `folder/step-NNNNNNNN`, then remove the ones before it, except the best and the newest `keep`.

    step: the number of steps done. state: what else to remember; its `val_loss`, if there is one, decides which
    checkpoint is the best. Raises UserError if the disk is full.
    """
    path = folder / f"step-{step:08d}"
    captured = capture(model, optimizer)
    try:
        with atomic_path(path) as partial:
            partial.mkdir(parents=True)
            save_file(captured.tensors, partial / "model.safetensors")
            save_file(captured.moments, partial / "optimizer.safetensors")
            (partial / "state.json").write_text(json.dumps({"step": step, **state}, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"no checkpoint of step {step} could be written to {folder} ({_why(error, folder, captured)}): the "
            "checkpoints before it still stand; make room and go on with --resume"
        ) from error
    so_far = [
        other for other in checkpoints(folder) if other.name <= path.name
    ]  # `load_newest` found later ones broken
    for old in set(so_far[:-keep]) - {best_of(so_far)}:
        shutil.rmtree(old)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step-*"))


def best_of(paths: list[Path]) -> Path | None:
    """Return the checkpoint with the lowest validation loss, the earliest of equals; None if none was measured."""
    losses = {path: _state_of(path).get("val_loss") for path in paths}
    measured = {path: loss for path, loss in losses.items() if loss is not None}
    return min(measured, key=measured.__getitem__, default=None)


def newest_step(folder: Path) -> int | None:
    """Return the steps done at the newest whole checkpoint, by its files' headers alone; None if there is none."""
    for path in reversed(checkpoints(folder)):
        try:
            for name in ("model.safetensors", "optimizer.safetensors"):
                with safe_open(path / name, "pt"):
                    pass  # a file that was cut short does not open
        except (OSError, SafetensorError):
            continue
        if "step" in (state := _state_of(path)):
            return state["step"]
    return None


def load_newest(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any] | None, list[str]]:
    """Load the newest whole checkpoint into model and optimizer.

    Returns its state, or None if there is none, and a line for each broken checkpoint that was passed over.
    Raises UserError if a checkpoint holds other tensors than this model trains.
    """
    passed_over = [f"{name} was half written and has been removed" for name in sweep_partial(folder)]
    for path in reversed(checkpoints(folder)):
        try:
            captured = Captured(load_file(path / "model.safetensors"), load_file(path / "optimizer.safetensors"))
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            passed_over.append(f"{path} is not whole ({_first_line(error)}) and is passed over")
            continue
        _check_shapes(path, captured.tensors, trained_tensors(model))
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


def _state_of(path: Path) -> dict[str, Any]:
    """Return the contents of a checkpoint's state.json, {} if it is broken."""
    try:
        return json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _why(error: Exception, folder: Path, captured: Captured) -> str:
    needed = sum(tensor.nbytes for part in captured for tensor in part.values())
    full = getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(folder).free < needed
    return "no space left on the device" if full else _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
