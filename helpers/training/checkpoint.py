"""Checkpoints: only what trains, written whole or not at all, without pickle, and exact when loaded again.

    checkpoints/step-00000200/model.safetensors       the tensors that train
                              optimizer.safetensors   their moments
                              state.json              step, gradient scaler, the loss since the last row of the history

Batches and dropout are functions of the step (see batches.py and training.py), so a checkpoint needs neither a
position in the data nor the state of a random generator.
"""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ..errors import UserError
from ..runtime.files import atomic_path, sweep_partial


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], keep: int = 2
) -> Path:
    """Write `folder/step-NNNNNNNN`, then drop all up to it but the `keep` newest and the best.

    state: what else to remember; its `val_loss`, where there is one, says which checkpoint is the best. Raises
    UserError when the disk is full.
    """
    path = folder / f"step-{step:08d}"
    tensors, moments = capture(model, optimizer)
    try:
        with atomic_path(path) as partial:
            partial.mkdir(parents=True)
            save_file(tensors, partial / "model.safetensors")
            save_file(moments, partial / "optimizer.safetensors")
            (partial / "state.json").write_text(json.dumps({"step": step, **state}, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"no checkpoint of step {step} could be written to {folder} ({_reason(error)}): the checkpoints before it "
            "still stand; make room and go on with --resume"
        ) from error
    so_far = [other for other in checkpoints(folder) if other.name <= path.name]  # a later one is broken, see below
    for old in set(so_far[:-keep]) - {best_of(so_far)}:
        shutil.rmtree(old)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step-*"))


def best_of(paths: list[Path]) -> Path | None:
    """The checkpoint with the lowest validation loss, the earliest of equals; None where no loss was measured."""
    losses = {path: _state_of(path).get("val_loss") for path in paths}
    measured = {path: loss for path, loss in losses.items() if loss is not None}
    return min(measured, key=measured.__getitem__, default=None)


def newest_step(folder: Path) -> int | None:
    """The step of the newest whole checkpoint, by its files' headers alone; None where there is none."""
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

    Returns its state, or None when there is none, and a line for each broken checkpoint that was passed over.
    Raises UserError when a checkpoint holds other tensors than this model trains.
    """
    passed_over = [f"{name} was half written and has been removed" for name in sweep_partial(folder)]
    for path in reversed(checkpoints(folder)):
        try:
            tensors = load_file(path / "model.safetensors")
            moments = load_file(path / "optimizer.safetensors")
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            passed_over.append(f"{path} is not whole ({_reason(error)}) and is passed over")
            continue
        _check_shapes(path, tensors, trained_tensors(model))
        restore(model, optimizer, tensors, moments)
        return state, passed_over
    return None, passed_over


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes or takes from the data: trainable parameters, mean and spread of the embeddings."""
    trained = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {**trained, "embedding_mean": model.embedding_mean, "embedding_std": model.embedding_std}


def capture(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Copies on the CPU of the tensors that train, by name, and of their moments, as `NAME/exp_avg` and so on."""
    moments = {
        f"{name}/{key}": value.reshape(1) if value.ndim == 0 else value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    tensors = trained_tensors(model)
    return tuple({key: value.detach().cpu().clone() for key, value in part.items()} for part in (tensors, moments))


def restore(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, torch.Tensor],
    moments: dict[str, torch.Tensor],
) -> None:
    """Bring model and optimizer to where `capture` found them."""
    model.load_state_dict(tensors, strict=False)
    optimizer.state.clear()
    parameters = dict(model.named_parameters())
    for key, value in moments.items():
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
    """What a checkpoint's state.json says; nothing where it is broken."""
    try:
        return json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _reason(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return "no space left on the device"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
