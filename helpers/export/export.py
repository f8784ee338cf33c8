"""A captioner exported: its folder for ONNX Runtime and for browsers, with a report on how its captions compare."""

import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor

from ..encoders.small_files import JPEG_QUALITY
from ..encoders.vision import plain_setting
from ..errors import UserError
from ..models.writer import CaptionWriter
from ..runtime.files import atomic_path, write_json
from .folder import FILES, INT8, LANGUAGE, PARITY, PICTURE, SETTINGS, TOKENIZER, VERSION, refuse_other
from .graphs import export_language, export_picture
from .parity import compare
from .pictures import FILTERS, prepare
from .quantise import shrink_weights
from .writer import OnnxWriter

NEEDED = ("onnx", "onnxruntime", "onnxscript")
SHOWN = ("torch", "transformers", "onnx", "onnxruntime")  # packages whose versions the report names
CLOSE = 1e-4  # largest difference between two preparations of a picture, in units of `std`


def export_captioner(
    source: str | Path, out: str | Path, batches: Iterable[Mapping[str, Image.Image]] = ()
) -> dict[str, Any]:
    """Export the captioner in the folder `source` to the folder `out`; return the parity report, `parity.compare`'s.

    batches: the pictures to compare captions on. Raises UserError if the captioner cannot be exported, or if `out`
    holds something else than an exported captioner.
    """
    out = Path(out)
    refuse_other(out, {*FILES, INT8, PARITY}, "an exported captioner")
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(f"the export needs {', '.join(missing)}: pip install {' '.join(NEEDED)}")
    writer = CaptionWriter.load(source)
    captioner = writer.captioner
    if captioner.config.original_start:
        raise UserError(
            f"{source} begins its captions as the original does, which no graph can: keep to PyTorch for it"
        )
    trials = [_trial(500, 375), _trial(90, 200)]
    pixels = writer.clip().pixel_values(trials)
    settings = {"version": VERSION, "pictures": preparation(writer.processor, tuple(pixels.shape[2:]))}
    made = np.stack([prepare(picture, settings["pictures"]) for picture in trials])
    if made.shape != tuple(pixels.shape) or abs(made - pixels.numpy()).max() > CLOSE:
        raise UserError(f"{source} prepares pictures in a way that cannot be exported: keep to PyTorch for it")
    with atomic_path(out) as partial:
        (partial / INT8).mkdir(parents=True)
        export_picture(captioner, pixels, partial / PICTURE)
        cache = export_language(captioner.gpt2, partial / LANGUAGE)
        settings["writing"] = {
            "endings": captioner.endings, "longest": captioner.longest_caption,
            "length_penalty": captioner.config.beam_length_penalty, **cache,
        }  # fmt: skip
        write_json(partial / SETTINGS, settings)
        writer.tokenizer.backend_tokenizer.save(str(partial / TOKENIZER))
        for name in FILES:
            if name in (PICTURE, LANGUAGE):
                shrink_weights(partial / name, partial / INT8 / name)
            else:
                shutil.copy(partial / name, partial / INT8 / name)
        exported = {"float": OnnxWriter.load(partial), INT8: OnnxWriter.load(partial / INT8)}
        report = {"versions": {name: version(name) for name in SHOWN}, **compare(writer, exported, batches)}
        for name, folder in (("float", partial), (INT8, partial / INT8)):
            report[name]["megabytes"] = round(sum((folder / file).stat().st_size for file in FILES) / 1e6, 1)
        write_json(partial / PARITY, report)
    return report


def preparation(processor: BaseImageProcessor, size: tuple[int, int]) -> dict[str, Any]:
    """Return what an image processor does to a picture, for `pictures.prepare`. size: (H, W) of its pixels."""
    sides = plain_setting(processor.size)
    resample = {int(value): name for name, value in FILTERS.items()}.get(int(processor.resample))
    usual = processor.do_resize and processor.do_rescale and processor.do_normalize and resample
    if not usual or not set(sides) <= {"height", "width", "shortest_edge"}:
        raise UserError("this captioner prepares pictures in a way that cannot be exported (it must resize by "
                        f"{' or '.join(FILTERS)}, rescale and normalise): keep to PyTorch for it")  # fmt: skip
    return {
        "reduce_to": getattr(processor, "reduce_to", None), "jpeg_quality": JPEG_QUALITY,
        "shortest_edge": sides.get("shortest_edge"), "height": size[0], "width": size[1], "resample": resample,
        "factor": processor.rescale_factor, "mean": plain_setting(processor.image_mean),
        "std": plain_setting(processor.image_std),
    }  # fmt: skip


def _trial(width: int, height: int) -> Image.Image:
    """Return a picture on which two preparations would differ."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 5, width // 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
