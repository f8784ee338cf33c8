"""The image processor of an encoder: loaded, and refused if it does not make pictures for its tower."""

import numpy as np
from PIL import Image
from transformers import AutoImageProcessor, PreTrainedConfig
from transformers.image_processing_utils import BaseImageProcessor

from ..config import REDUCED_TO, check_value
from ..errors import UserError
from ..runtime.libraries import one_line_errors, quietly
from .vision import ImageEncoder, plain_setting

try:  # Pillow's resizing gives the same pixels with and without torchvision; since transformers 5.4 it has its own name
    from transformers import CLIPImageProcessorPil as CLIPImageProcessor

    PILLOW = {"backend": "pil"}
except ImportError:
    from transformers import CLIPImageProcessor

    PILLOW = {"use_fast": False}

__all__ = ["CLIPImageProcessor", "load_processor"]

LARGEST_SIDE = 2048  # pixels of a picture that a tower may take; published ones take up to 518


def load_processor(source: str, config: PreTrainedConfig, *, what: str) -> BaseImageProcessor:
    """Load a model's image processor, in the version that resizes by Pillow. what: the model's name in messages.

    config: of the vision tower. Raises UserError if the processor does not make pictures for it.
    """
    with one_line_errors(source, what), quietly(), np.errstate(all="ignore"):
        processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False, **PILLOW)
        _match_size(source, config, processor)
        _check_reduction(source, processor)
        picture = Image.linear_gradient("L").convert("RGB")
        made = ImageEncoder(None, processor, source).pixel_values([picture])  # of a plain picture, as a trial
    if made.ndim != 4 or made.shape[1] != 3 or not made.isfinite().all() or (made.std(dim=(0, 2, 3)) == 0).any():
        raise UserError(
            f"{source} makes pixels that are not finite, or all the same; correct its preprocessor_config.json"
        )
    return processor


def _check_reduction(source: str, processor: BaseImageProcessor) -> None:
    """Raise UserError if the processor's `reduce_to` is no number of pixels within reason."""
    side = getattr(processor, "reduce_to", None)
    if side is not None and type(side) is not int:
        raise UserError(f"{source} has reduce_to {side!r} in its preprocessor_config.json, which is no whole number of "
                        "pixels; correct it")  # fmt: skip
    if side is not None:
        check_value(f"reduce_to in the preprocessor_config.json of {source}", side, **REDUCED_TO)


def _match_size(source: str, config: PreTrainedConfig, processor: BaseImageProcessor) -> None:
    """Raise UserError if the processor's pictures have another size than the tower takes, or a size beyond reason.

    DINOv2 takes any size that its patches fill, because it interpolates its position embeddings; its config notes it.
    """
    cropping = getattr(processor, "do_center_crop", False)
    size, side = plain_setting(processor.crop_size if cropping else processor.size), config.image_size
    made = size.get("height", 0) if size.get("height") == size.get("width") else 0
    if config.model_type == "dinov2" and 0 < made <= LARGEST_SIDE and made % config.patch_size == 0:
        config.pixels = made
    elif size != {"height": side, "width": side}:
        raise UserError(
            f"{source} makes pictures of {size} pixels, but its tower takes {side} pixels both ways; correct its "
            "preprocessor_config.json"
        )
    largest = max(side, *plain_setting(processor.size).values())
    if not 0 < largest <= LARGEST_SIDE:
        raise UserError(f"{source} takes pictures of {largest} pixels, but at most {LARGEST_SIDE} are allowed; correct "
                        "its config.json and preprocessor_config.json")  # fmt: skip
