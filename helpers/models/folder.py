"""Where a captioner lies on disk, found without importing PyTorch, so that a wrong path is answered at once."""

from pathlib import Path

from ..errors import UserError


def captioner_folder(folder: str | Path) -> Path:
    """Return `folder`, or the captioner of the run in `folder`. Raises UserError if there is none."""
    for place in (Path(folder), Path(folder) / "captioner"):
        if any(place.glob("*.safetensors")):
            return place
    raise UserError(f"{folder} holds no captioner: give the folder of a run or of a captioner, or train one first")
