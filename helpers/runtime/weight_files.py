"""The files of a model's weights: which tensors they hold, without building a model and without running a pickle."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError

SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"  # the ending of the list of the shards of either
LARGEST_RATIO = 3  # bytes of tensors per byte of a file of PyTorch's format: tied tensors count once each


def find_weights(source: str) -> list[Path]:
    """Return the files of the weights in a folder or in a repository on the hub, which is fetched; [] if none.

    Safetensors come before PyTorch's own format. Raises UserError if a list of shards names a file elsewhere.
    """
    from transformers.utils.hub import cached_file

    def find(name: str) -> Path | None:
        found = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        return Path(found) if found else None

    for name in (SAFETENSORS, TORCH):
        if file := find(name):
            return [file]
        if file := find(name + INDEX):
            names = sorted(set(json.loads(file.read_text("utf-8"))["weight_map"].values()))
            if strange := next((shard for shard in names if Path(shard).name != shard), None):
                raise UserError(f"{file} names {strange!r}, which is no file beside it; give a whole checkpoint")
            return [shard for shard in map(find, names) if shard]
    return []


def tensor_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in the files by its name; of safetensors only the header is read.

    Raises UserError if a file of PyTorch's format holds anything but tensors.
    """
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as opened:
                shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
        else:
            tensors = read_pickled(file)
            shapes |= {name: tuple(tensor.shape) for name, tensor in tensors.items() if hasattr(tensor, "shape")}
    return shapes


def read_pickled(file: Path) -> dict[str, Any]:
    """Return what a file of PyTorch's format holds, if that is a dict of tensors and plain values; no code in it runs.

    Tensors stay on disk until they are used, where the format allows it. Raises UserError on anything else.
    """
    import torch

    if not file.is_file():
        raise UserError(f"{file} is no file; give the file of a checkpoint")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file) or None)
    except Exception as error:  # pickle, zipfile and PyTorch each raise their own
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise UserError(
            f"{file} holds more than tensors, or is damaged ({reason[:150].rstrip('.')}), and no code of a checkpoint "
            "is run here; if you trust where it is from, save its state dict alone by torch.save, and give that file"
        ) from error
    held = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(content))
    if held > LARGEST_RATIO * file.stat().st_size + 10**6:
        raise UserError(f"{file} describes {held:,} bytes of tensors, but is a file of {file.stat().st_size:,}; give a "
                        "whole checkpoint")  # fmt: skip
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__}, but a state dict is needed here; save it alone")
    return content


def _tensors(content: Any) -> Iterator[Any]:
    """Yield the tensors in nested dicts and lists."""
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list | tuple):
        for each in content:
            yield from _tensors(each)
    elif hasattr(content, "element_size"):
        yield content
