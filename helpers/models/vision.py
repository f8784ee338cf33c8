"""The frozen image encoder: CLIP's vision tower, its image processor, and which of its outputs is the embedding."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel

try:  # Pillow's resizing gives the same pixels with and without torchvision; since transformers 5.4 it has its own name
    from transformers import CLIPImageProcessorPil as CLIPImageProcessor
except ImportError:
    from transformers import CLIPImageProcessor

# Each pooling in the words of a cache's fingerprint. "patches" are the tokens of the layer that the pooled output is
# taken from, class token first, so a comparison of the two measures the pooling alone. CLIP applies its final norm to
# the class token only; the other tokens get the same norm here, as in open_clip, or their scale would differ. (LLaVA
# takes the layer before, without the class token, because CLIP's loss never reaches the last layer's patches.)
POOLING = {
    "pooled": "pooler_output of the vision tower, before projection",
    "patches": "last_hidden_state of the vision tower, class token first, each token after the final norm",
}
PREPROCESSING = ("do_convert_rgb", "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale",
                 "rescale_factor", "do_normalize", "image_mean", "image_std")  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """A frozen vision tower with its image processor.

    name: the name or folder that it was loaded by. pooling: "pooled" or "patches", the output that is the embedding.
    """

    vision: CLIPVisionModel
    processor: CLIPImageProcessor
    name: str
    pooling: str = "pooled"

    @property
    def width(self) -> int:
        """D, the width of an embedding: 768 in ViT-B/32, 1024 in ViT-L/14."""
        return self.vision.config.hidden_size

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one picture's embedding: (D,), or (S, D) for patches."""
        return embedding_shape(self.vision.config, self.pooling)

    def pixel_values(self, pictures: list[Image.Image]) -> torch.Tensor:
        """Prepare RGB pictures of any size for this CLIP: float32 [B, 3, H, W] on the CPU."""
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
        settings = {key: plain_setting(getattr(self.processor, key)) for key in PREPROCESSING}
        return {
            "name": self.name,
            "weights_sha256": self._weights_sha256,
            "preprocessing": settings,
            "pooling": POOLING[self.pooling],
            "dtype": str(self.vision.dtype).removeprefix("torch."),
            "width": self.width,
            **({"tokens": self.shape[0]} if self.pooling == "patches" else {}),
        }

    @cached_property
    def _weights_sha256(self) -> str:
        """The hash of all tensors by name, without the prefix `vision_model.` that some transformers versions add."""
        digest = hashlib.sha256()
        state = {key.removeprefix("vision_model."): value for key, value in self.vision.state_dict().items()}
        for key, value in sorted(state.items()):
            digest.update(f"{key} {tuple(value.shape)} ".encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


def image_features(vision: CLIPVisionModel, pixel_values: torch.Tensor, pooling: str) -> torch.Tensor:
    """Return the tower's output for [B, 3, H, W]: [B, D], or [B, S, D] for patches, whose token 0 is the pooled one."""
    output = vision(pixel_values=pixel_values)
    if pooling == "pooled":
        return output.pooler_output
    tower = getattr(vision, "vision_model", vision)  # some versions of transformers wrap the tower
    return tower.post_layernorm(output.last_hidden_state)


def embedding_shape(vision_config: CLIPVisionConfig, pooling: str) -> tuple[int, ...]:
    """Return (D,), or (S, D) for patches. S counts the patches and the class token: 50 in ViT-B/32, 257 in ViT-L/14."""
    tokens = (vision_config.image_size // vision_config.patch_size) ** 2 + 1
    return (vision_config.hidden_size,) if pooling == "pooled" else (tokens, vision_config.hidden_size)


def plain_setting(value: Any) -> Any:
    """Return an image processor's setting as JSON holds it, the same for every version of transformers."""
    if isinstance(value, tuple | list):
        return [float(part) for part in value]
    if isinstance(value, bool | float | None):
        return value
    if isinstance(value, int):
        return int(value)
    return {key: int(part) for key, part in dict(value).items() if part is not None}
