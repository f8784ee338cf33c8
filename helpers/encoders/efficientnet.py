"""EfficientNet-Lite (Tan and Le 2019; TPU team 2020): a small image encoder with weights pretrained on ImageNet.

A stack of inverted residual blocks (MobileNetV2): a 1x1 convolution widens, a depthwise one looks around within each
channel, another 1x1 narrows, and the input is added. The "lite" models have no squeeze-and-excitation, ReLU6 in place
of swish, and a stem and a head of the same size in all of them.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

# Per stage: blocks, kernel, stride, widening, channels out. Channels and blocks are scaled in the larger models.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
STEM = 32  # channels
DOWNSCALE = 32  # pixels per place of the last feature map, both ways
# Factor of the channels, factor of the blocks, and image size in pixels.
SIZES = {"lite0": (1.0, 1.0, 224), "lite1": (1.0, 1.1, 240), "lite2": (1.1, 1.2, 260), "lite3": (1.2, 1.4, 280),
         "lite4": (1.4, 1.8, 300)}  # fmt: skip

LARGEST_FACTOR = 4  # of channels and blocks; the largest published EfficientNet has 2.0 and 3.1


class EfficientNetLiteConfig(PreTrainedConfig):
    """The shapes of a model. width, depth: factors of channels and blocks. hidden_size: D of its output."""

    model_type = "efficientnet_lite"

    def __init__(
        self, width: float = 1.0, depth: float = 1.0, image_size: int = 224, hidden_size: int = 1280, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if not 0 < width <= LARGEST_FACTOR or not 0 < depth <= LARGEST_FACTOR:
            raise ValueError(
                f"width is {width} and depth is {depth}, but both must be above 0 and at most {LARGEST_FACTOR}"
            )
        self.width, self.depth, self.image_size, self.hidden_size = width, depth, image_size, hidden_size

    @classmethod
    def of_size(cls, size: str) -> "EfficientNetLiteConfig":
        """Return the config of a published model, "lite0" to "lite4"."""
        width, depth, image_size = SIZES[size]
        return cls(width=width, depth=depth, image_size=image_size)

    @property
    def stage_channels(self) -> list[int]:
        """The channels that each stage of blocks puts out."""
        return [_scaled_channels(out, self.width) for *_, out in STAGES]


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding: at stride 2 an odd pixel is added on the right and below."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.convolve(pixels, self.weight, self.bias)

    def convolve(self, pixels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return the convolution of pixels [B, C, H, W] with weights of this layer's shape."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        down, across = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in pixels.shape[2:])
        if down % 2 or across % 2:  # else the convolution pads by itself, without a copy of the pixels
            pixels = F.pad(pixels, (across // 2, across - across // 2, down // 2, down - down // 2))
            down = across = 0
        return F.conv2d(pixels, weight, bias, stride, (down // 2, across // 2), groups=self.groups)


class ConvNorm(nn.Sequential):
    """Convolution, batch norm with TensorFlow's constants, and ReLU6 unless told otherwise.

    In eval mode batch norm is a factor and a summand that the convolution takes over, so it costs no pass of its own.
    """

    def __init__(
        self, channels: int, out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True
    ):
        super().__init__(
            SameConv(channels, out, kernel, stride, groups=groups, bias=False),
            nn.BatchNorm2d(out, eps=1e-3, momentum=0.01),
            *([nn.ReLU6()] if relu else []),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        conv, norm = self[0], self[1]
        if self.training:
            return super().forward(pixels)
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()  # [out]
        features = conv.convolve(pixels, conv.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale)
        return F.relu6(features, inplace=True) if len(self) > 2 else features


class Block(nn.Module):
    """Widen, look around, narrow; add the input if it has the same shape."""

    def __init__(self, channels: int, out: int, *, kernel: int, stride: int, widening: int):
        super().__init__()
        wide = channels * widening
        self.adds = stride == 1 and channels == out
        self.layers = nn.Sequential(
            *([ConvNorm(channels, wide)] if widening > 1 else []),
            ConvNorm(wide, wide, kernel=kernel, stride=stride, groups=wide),
            ConvNorm(wide, out, relu=False),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(features) + features if self.adds else self.layers(features)


class EfficientNetLiteModel(PreTrainedModel):
    """The encoder without ImageNet's classifier: lite0 has 3.4 million parameters, lite2 4.9."""

    config_class = EfficientNetLiteConfig
    main_input_name = "pixel_values"

    def __init__(self, config: EfficientNetLiteConfig):
        super().__init__(config)
        self.stem, channels, blocks = ConvNorm(3, STEM, kernel=3, stride=2), STEM, []
        self.stage_ends: list[int] = []  # the number of the last block of each stage
        stages = zip(STAGES, config.stage_channels, strict=True)
        for number, ((repeats, kernel, stride, widening, _), out) in enumerate(stages):
            if 0 < number < len(STAGES) - 1:  # the first and the last stage keep their depth
                repeats = math.ceil(repeats * config.depth)
            for repeat in range(repeats):
                first = stride if repeat == 0 else 1
                blocks.append(Block(channels, out, kernel=kernel, stride=first, widening=widening))
                channels = out
            self.stage_ends.append(len(blocks) - 1)
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(channels, config.hidden_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise convolutions; a norm is as PyTorch made it, since a reset in transformers 5.0 undoes loading."""
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] ** 2 * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def forward(self, pixel_values: torch.Tensor, output_hidden_states: bool = False) -> BaseModelOutputWithPooling:
        """Turn pixels [B, 3, H, W], (x - 127) / 128 of 0 to 255, into patches [B, S, D] and their mean [B, D].

        output_hidden_states: return the feature map after each stage too, [B, C, H, W].
        """
        features = self.stem(pixel_values.contiguous(memory_format=torch.channels_last))  # twice as fast on a CPU
        stages = []
        for number, block in enumerate(self.blocks):
            features = block(features)
            if output_hidden_states and number in self.stage_ends:
                stages.append(features)
        patches = self.head(features).flatten(2).transpose(1, 2)  # [B, S, D]
        return BaseModelOutputWithPooling(
            last_hidden_state=patches, pooler_output=patches.mean(dim=1), hidden_states=tuple(stages) or None
        )


def _scaled_channels(channels: int, factor: float) -> int:
    """Return the nearest multiple of 8 to the scaled number, and never less than nine tenths of it."""
    if factor == 1:
        return channels
    scaled = channels * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel, exist_ok=True)
