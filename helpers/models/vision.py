"""TODO."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
)

try:  # Pillow's resizing gives the same pixels with and without torchvision; since transformers 5.4 it has its own name
    from transformers import CLIPImageProcessorPil as CLIPImageProcessor
except ImportError:
    from transformers import CLIPImageProcessor


# What an embedding is, in the words of a cache's fingerprint. "patches" are the tokens of the same layer that the
# pooled output is taken from, and the class token stands first, so that they say all that the pooled output says and
# what is measured between the two is the pooling alone. CLIP norms the class token only; the others get the same norm,
# as in open_clip, or they would come in another scale. (LLaVA takes the layer before, without the class token: CLIP's
# loss reaches the patches of the last layer through no output of their own.)
POOLING = {
    "pooled": "pooler_output of the vision tower, before projection",
    "patches": "last_hidden_state of the vision tower, class token first, each token after the final norm",
}
PREPROCESSING = ("do_convert_rgb", "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale",
                 "rescale_factor", "do_normalize", "image_mean", "image_std")  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """A frozen vision tower, its image processor, the name it was asked for by, and which of its outputs is taken."""

    vision: CLIPVisionModel
    processor: CLIPImageProcessor
    name: str
    pooling: str = "pooled"  # or "patches"

    @property
    def width(self) -> int:
        """D, the width of an embedding: 768 in ViT-B/32, 1024 in ViT-L/14."""
        return self.vision.config.hidden_size

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one picture's embedding: (D,), or (S, D) of patches."""
        return embedding_shape(self.vision.config, self.pooling)

    def pixel_values(self, pictures: list[Image.Image]) -> torch.Tensor:
        """RGB pictures of any size, prepared as this CLIP wants them: float32 [B, 3, S, S] on the CPU."""
        # Told where the colors are, for it would take a picture 3 pixels high for one of 3 channels.
        return self.processor(images=pictures, return_tensors="pt", input_data_format="channels_last")["pixel_values"]

    @torch.no_grad()
    def embed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embeddings, float32 [B, D] or [B, S, D] on the CPU, wherever and however finely CLIP computes."""
        pixel_values = pixel_values.to(self.vision.device, self.vision.dtype)
        return see(self.vision, pixel_values, self.pooling).float().cpu()

    def encode(self, pictures: list[Image.Image]) -> torch.Tensor:
        """Embeddings of RGB pictures, float32 [B, D] or [B, S, D] on the CPU."""
        return self.embed(self.pixel_values(pictures))

    def fingerprint(self) -> dict[str, Any]:
        """What the embeddings depend on; equal for the same weights under another name, but for `name`."""
        settings = {key: _plain(getattr(self.processor, key)) for key in PREPROCESSING}
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
        """Over the tensors as they compute, by name, less the `vision_model.` that begins a name in some versions."""
        digest = hashlib.sha256()
        state = {key.removeprefix("vision_model."): value for key, value in self.vision.state_dict().items()}
        for key, value in sorted(state.items()):
            digest.update(f"{key} {tuple(value.shape)} ".encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


def see(vision: CLIPVisionModel, pixel_values: torch.Tensor, pooling: str) -> torch.Tensor:
    """What the tower makes of [B, 3, H, W]: [B, D], or under "patches" [B, S, D], whose token 0 is the pooled one."""
    output = vision(pixel_values=pixel_values)
    if pooling == "pooled":
        return output.pooler_output
    tower = getattr(vision, "vision_model", vision)  # in some versions of transformers the tower lies within
    return tower.post_layernorm(output.last_hidden_state)


def embedding_shape(vision_config: CLIPVisionConfig, pooling: str) -> tuple[int, ...]:
    """(D,), or under "patches" (S, D), where S counts the patches and the class token: 50 in ViT-B/32, 257 in L/14."""
    tokens = (vision_config.image_size // vision_config.patch_size) ** 2 + 1
    return (vision_config.hidden_size,) if pooling == "pooled" else (tokens, vision_config.hidden_size)


def _plain(value: Any) -> Any:
    """A processor's setting as JSON has it, whichever version of transformers holds it."""
    if isinstance(value, tuple | list):
        return [float(part) for part in value]
    if isinstance(value, bool | float | None):
        return value
    if isinstance(value, int):
        return int(value)
    return {key: int(part) for key, part in dict(value).items() if part is not None}
