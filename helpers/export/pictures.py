"""Pictures as an exported captioner's graph takes them. It does with Pillow and NumPy what the image processor does."""

from typing import Any

import numpy as np
from PIL import Image

from ..encoders.small_files import reduce_picture

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def prepare(picture: Image.Image, settings: dict[str, Any]) -> np.ndarray:
    """Return the pixels of an RGB picture as float32 [3, H, W]. settings: those of `preparation`."""
    if settings["reduce_to"]:
        picture = reduce_picture(picture, settings["reduce_to"])
    height, width = settings["height"], settings["width"]
    edge = settings["shortest_edge"]  # the rest is cropped; None fits the whole picture into height x width
    across, down = (width, height) if edge is None else (edge * side // min(picture.size) for side in picture.size)
    picture = picture.resize((across, down), FILTERS[settings["resample"]])
    left, top = (across - width) // 2, (down - height) // 2
    pixels = np.asarray(picture, dtype=np.float32)[top : top + height, left : left + width]
    mean, spread = (np.array(settings[name], dtype=np.float32) for name in ("mean", "std"))
    return ((pixels * np.float32(settings["factor"]) - mean) / spread).transpose(2, 0, 1)
