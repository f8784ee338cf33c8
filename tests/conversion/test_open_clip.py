"""A CLIP ViT of open_clip, converted: the same embeddings as its own code, written here as open_clip describes it."""

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from helpers.conversion.open_clip import CONFIG, convert_open_clip
from helpers.errors import UserError
from helpers.models.loading import load_encoder

SETTINGS = {"embed_dim": 24, "vision_cfg": {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8}}
COLORS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


class QuickGelu(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width: int, activation: type[nn.Module]):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // 64, batch_first=True)
        layers = [
            ("c_fc", nn.Linear(width, 4 * width)),
            ("gelu", activation()),
            ("c_proj", nn.Linear(4 * width, width)),
        ]
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Visual(nn.Module):
    def __init__(self, activation: type[nn.Module], width: int = 128, places: int = 16):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(places + 1, width))
        self.conv1 = nn.Conv2d(3, width, 8, 8, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(Block(width, activation) for _ in range(2))
        self.proj = nn.Parameter(torch.randn(width, 24))
        for parameter in self.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)

    @torch.no_grad()
    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer.resblocks:
            x = block(x)
        pooled = self.ln_post(x[:, 0])
        return pooled, pooled @ self.proj


def save(visual: Visual, folder: Path, layout: str, **settings) -> Path:
    state = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
    state |= {
        "logit_scale": torch.tensor(4.6),
        "transformer.resblocks.0.ln_1.weight": torch.ones(8),
    }  # the text tower's
    file = folder / ("open_clip_model.safetensors" if layout == "safetensors" else "open_clip_pytorch_model.bin")
    if layout == "safetensors":
        save_file(state, file)
    else:
        prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"epoch": 3, "state_dict": prefixed} if layout == "run" else state, file)
    (folder / CONFIG).write_text(json.dumps({"model_cfg": SETTINGS | settings, "preprocess_cfg": COLORS}))
    return file


@pytest.mark.parametrize(("layout", "activation"), [("safetensors", nn.GELU), ("bin", QuickGelu), ("run", nn.GELU)])
def test_the_embeddings_are_the_same(layout, activation, tmp_path):
    torch.manual_seed(0)
    visual = Visual(activation).eval()
    file = save(visual, tmp_path, layout, **({"quick_gelu": True} if activation is QuickGelu else {}))
    folder = convert_open_clip(file, tmp_path / "out")
    pictures = [Image.linear_gradient("L").convert("RGB"), Image.radial_gradient("L").convert("RGB").resize((50, 40))]
    for place, pooling in enumerate(("pooled", "projected")):
        encoder = load_encoder(folder, pooling=pooling)
        pixels = encoder.pixel_values(pictures)
        torch.testing.assert_close(encoder.see(pixels), visual(pixels)[place], atol=1e-4, rtol=1e-4)
    assert list(encoder.processor.image_mean) == COLORS["mean"]
    assert convert_open_clip(file, tmp_path / "out") == folder  # the same again


def test_what_is_no_vit_of_open_clip_is_refused(tmp_path):
    file = save(Visual(nn.GELU), tmp_path, "bin")

    def refused() -> str:
        with pytest.raises(UserError) as error:
            convert_open_clip(file, tmp_path / "out")
        assert "\n" not in str(error.value)
        return str(error.value)

    with pytest.raises(UserError, match="is in open_clip's layout: give what `clipxgpt convert open-clip` makes of"):
        load_encoder(tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps({"model_cfg": SETTINGS, "preprocess_cfg": {"resize_mode": "squash"}}))
    assert "sets resize_mode, which only other models" in refused()
    heads = json.dumps({"vision_cfg": {"head_width": 0}})
    for broken in (
        "[]",
        "{",
        "[" * 100_000,
        heads,
        json.dumps({"model_cfg": SETTINGS, "preprocess_cfg": {"mean": "red"}}),
        json.dumps({"model_cfg": SETTINGS, "preprocess_cfg": {"std": [0.2, 0, 0.2]}}),
        '{"model_cfg": 3}',
        '{"preprocess_cfg": 1, "model_cfg": {"vision_cfg": {}}}',
    ):
        (tmp_path / CONFIG).write_text(broken)
        assert "is missing or no config of open_clip" in refused()
    (tmp_path / CONFIG).write_text(json.dumps({"vision_cfg": {"head_width": 256}}))
    assert "holds a tower 128 numbers wide, which heads of 256 do not fill: correct head_width in" in refused()
    (tmp_path / CONFIG).unlink()
    assert "is missing or no config of open_clip (FileNotFoundError)" in refused()
    torch.save({"visual.trunk.stem.weight": torch.zeros(3)}, file)
    (tmp_path / CONFIG).write_text(json.dumps(SETTINGS))
    assert "is no checkpoint of a CLIP ViT of open_clip: it has none of visual.class_embedding" in refused()
