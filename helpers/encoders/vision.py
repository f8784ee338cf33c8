"""The frozen image encoder: a vision tower, its image processor, and the output that is the embedding.

One interface over transformers' CLIP, SigLIP (and SigLIP 2), DINOv2 and ViT, and the project's EfficientNet-Lite:
pixel values [B, 3, H, W] in; "pooled" [B, D], "patches" [B, S, D], "projected" or "stages" [B, D'] out.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import transformers
from PIL import Image
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..errors import UserError
from .efficientnet import DOWNSCALE, EfficientNetLiteModel
from .small_files import reduce_picture

# The class of each tower by the model type of its config. Those of transformers are imported when they are needed.
TOWERS: dict[str, str | type[PreTrainedModel]] = {
    "clip_vision_model": "CLIPVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
    "dinov2": "Dinov2Model",
    "vit": "ViTModel",
    "efficientnet_lite": EfficientNetLiteModel,
}
NO_CLASS_TOKEN = ("siglip_vision_model", "efficientnet_lite")  # all of their tokens are patches
# Each pooling in the words of a cache's fingerprint. "patches" are the tokens of the layer that the pooled output is
# taken from, so a comparison of the two measures the pooling alone. CLIP applies its final norm to the class token
# only; the other tokens get the same norm here, as in open_clip, or their scale would differ. (LLaVA takes the layer
# before, without the class token, because CLIP's loss never reaches the last layer's patches.)
POOLING = {
    "pooled": "pooler_output of the vision tower, before projection",
    "projected": "image_embeds of the vision tower, after projection",
    "patches": "last_hidden_state of the vision tower, class token first, each token after the final norm",
    "stages": "means of the feature maps after each stage of the vision tower, then pooler_output",
}
PREPROCESSING = ("do_convert_rgb", "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale",
                 "rescale_factor", "do_normalize", "image_mean", "image_std")  # fmt: skip


@dataclass(frozen=True)
class ImageEncoder:
    """A frozen vision tower with its image processor.

    name: the name or folder that it was loaded by. pooling: a key of POOLING, the output that is the embedding.
    """

    vision: PreTrainedModel
    processor: BaseImageProcessor
    name: str
    pooling: str = "pooled"

    @property
    def width(self) -> int:
        """D, the width of an embedding: 768 in CLIP ViT-B/32, 1024 in ViT-L/14, 1280 in EfficientNet-Lite."""
        return self.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one picture's embedding: (D,), or (S, D) for patches."""
        return embedding_shape(self.vision.config, self.pooling)

    @property
    def reduce_to(self) -> int | None:
        """The side in pixels of the small files that the captioner's training photos came in, if that is known."""
        return getattr(self.processor, "reduce_to", None)

    def pixel_values(self, pictures: list[Image.Image]) -> torch.Tensor:
        """Prepare RGB pictures of any size for this encoder: float32 [B, 3, H, W] on the CPU.

        A processor with `reduce_to` first makes small files of larger pictures, see `reduce_picture`.
        """
        if self.reduce_to:
            pictures = [reduce_picture(picture, self.reduce_to) for picture in pictures]
        # The channel axis is named, or a picture 3 pixels high would be taken for one with 3 channels.
        return self.processor(images=pictures, return_tensors="pt", input_data_format="channels_last")["pixel_values"]

    @torch.no_grad()
    def see(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of prepared pictures, float32 [B, D] or [B, S, D] on the CPU."""
        pixel_values = pixel_values.to(self.vision.device, self.vision.dtype)
        return image_features(self.vision, pixel_values, self.pooling).float().cpu()

    def embed(self, pictures: list[Image.Image]) -> torch.Tensor:
        """Return the embeddings of RGB pictures, float32 [B, D] or [B, S, D] on the CPU."""
        return self.see(self.pixel_values(pictures))

    def fingerprint(self) -> dict[str, Any]:
        """Return everything the embeddings depend on. Only `name` differs for the same weights under another name."""
        settings = {key: plain_setting(getattr(self.processor, key, None)) for key in PREPROCESSING}
        return {
            "name": self.name,
            "weights_sha256": self._weights_sha256,
            "preprocessing": settings,
            "pooling": POOLING[self.pooling],
            "dtype": str(self.vision.dtype).removeprefix("torch."),
            "width": self.width,
            **({"tokens": self.shape[0]} if self.pooling == "patches" else {}),
            **({"reduce_to": self.reduce_to} if self.reduce_to else {}),
        }

    @cached_property
    def rounded_sha256(self) -> str:
        """The same hash of the weights rounded to float16, by which a captioner saved so has the eyes of the original.

        Buffers stay as they are, as in such a captioner, whose own `weights_sha256` is therefore this one.
        """
        return self._hash(rounded={name for name, _ in self.vision.named_parameters()})

    @cached_property
    def _weights_sha256(self) -> str:
        return self._hash()

    def _hash(self, rounded: Collection[str] = ()) -> str:
        """Return the hash of all tensors by name, those named in `rounded` after rounding to float16.

        Some versions of transformers add the prefix `vision_model.` to the names; it takes no part.
        """
        digest = hashlib.sha256()
        tensors = {key: value.half().to(value.dtype) if key in rounded else value
                   for key, value in self.vision.state_dict().items()}  # fmt: skip
        for key, value in sorted((key.removeprefix("vision_model."), value) for key, value in tensors.items()):
            digest.update(f"{key} {tuple(value.shape)} ".encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


def build_tower(config: PreTrainedConfig, pooling: str) -> PreTrainedModel:
    """Build an untrained vision tower of that config. Raises UserError if it lacks the output that `pooling` names."""
    return tower_class(config, pooling)(config, **tower_choices(config))


def tower_class(config: PreTrainedConfig, pooling: str) -> type[PreTrainedModel]:
    """Return the class of the tower. Raises UserError if it lacks the output that `pooling` names."""
    if pooling not in POOLING:
        raise UserError(f"pooling is {pooling!r}, but must be one of {', '.join(POOLING)}")
    if pooling == "stages" and config.model_type != "efficientnet_lite":
        raise UserError(f"pooling is 'stages', but a model of type {config.model_type} has no stages: choose pooled "
                        "or patches")  # fmt: skip
    if pooling != "projected":
        tower = TOWERS[config.model_type]
        return getattr(transformers, tower) if isinstance(tower, str) else tower
    if config.model_type != "clip_vision_model":
        raise UserError(f"pooling is 'projected', but a model of type {config.model_type} has no projection: choose "
                        "pooled or patches")  # fmt: skip
    return transformers.CLIPVisionModelWithProjection


def tower_choices(config: PreTrainedConfig) -> dict[str, Any]:
    """Return arguments for the tower's class: ViT's own pooler is left out, because few checkpoints have trained it."""
    return {"add_pooling_layer": False} if config.model_type == "vit" else {}


def image_features(vision: PreTrainedModel, pixel_values: torch.Tensor, pooling: str) -> torch.Tensor:
    """Return the tower's output for [B, 3, H, W]: [B, D], or [B, S, D] for patches, the class token first if any."""
    if pooling == "stages":
        output = vision(pixel_values=pixel_values, output_hidden_states=True)
        return torch.cat([*(stage.mean(dim=(2, 3)) for stage in output.hidden_states), output.pooler_output], dim=1)
    output = vision(pixel_values=pixel_values)
    if pooling == "projected":
        return output.image_embeds
    if pooling == "pooled":
        return output.last_hidden_state[:, 0] if output.pooler_output is None else output.pooler_output
    if vision.config.model_type == "clip_vision_model":
        tower = getattr(vision, "vision_model", vision)  # some versions of transformers wrap the tower
        return tower.post_layernorm(output.last_hidden_state)
    return output.last_hidden_state


def embedding_shape(config: PreTrainedConfig, pooling: str) -> tuple[int, ...]:
    """Return (D,), or (S, D) for patches and the class token, if any: S is 50 in CLIP ViT-B/32, 49 in lite0.

    D is the tower's width; its projection's if projected; the sum of all stages' channels and the width for stages.
    """
    if pooling == "projected":
        return (config.projection_dim,)
    if pooling == "pooled":
        return (config.hidden_size,)
    if pooling == "stages":
        return (sum(config.stage_channels) + config.hidden_size,)
    patch = DOWNSCALE if config.model_type == "efficientnet_lite" else config.patch_size
    side = -(-getattr(config, "pixels", config.image_size) // patch)
    return (side**2 + (config.model_type not in NO_CLASS_TOKEN), config.hidden_size)


def plain_setting(value: Any) -> Any:
    """Return an image processor's setting as JSON holds it, the same for every version of transformers."""
    if isinstance(value, tuple | list):
        return [float(part) for part in value]
    if isinstance(value, bool | float | None):
        return value
    if isinstance(value, int):
        return int(value)
    return {key: int(part) for key, part in dict(value).items() if part is not None}
