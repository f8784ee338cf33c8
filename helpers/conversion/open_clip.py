"""The vision towers of CLIP ViTs in open_clip's layout (github.com/mlfoundations/open_clip) as folders for --clip."""

import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ..encoders.processor import CLIPImageProcessor
from ..errors import UserError
from ..models.loading import refuse_non_finite
from ..runtime.files import atomic_path, read_object
from ..runtime.libraries import one_line_errors, quietly
from .folder import CARD, encoder_card, refuse_other
from .tensors import HEAD_WIDTH, State, count_layers, fill, part, read_state, tensor

CONFIG = "open_clip_config.json"
MARK = "visual.class_embedding"
NAMES = {
    r"^class_embedding$": "embeddings.class_embedding",
    r"^conv1\.": "embeddings.patch_embedding.",
    r"^positional_embedding$": "embeddings.position_embedding.weight",
    r"^ln_pre\.": "pre_layrnorm.",
    r"^ln_post\.": "post_layernorm.",
    r"^transformer\.resblocks\.": "encoder.layers.",
    r"\.ln_([12])\.": r".layer_norm\1.",
    r"\.attn\.": ".self_attn.",
    r"\.c_fc\.": ".fc1.",
    r"\.c_proj\.": ".fc2.",
}


def convert_open_clip(file: str | Path, out: str | Path) -> Path:
    """Save the vision tower of a CLIP ViT and its image processor in the folder `out`, for --clip; return the folder.

    file: a checkpoint of open_clip, with open_clip_config.json beside it, which tells the activation and the colors.
    Raises UserError if that is missing, if the file is of another kind, or if `out` holds something else.
    """
    file, out = Path(file), Path(out)
    card = encoder_card(file)
    refuse_other(out, card)
    settings, colors = _read_config(file)
    state = part(_read_state(file), "visual.")
    width, _, patch, _ = tensor(state, "conv1.weight", file, dimensions=4).shape
    image_size = math.isqrt(len(tensor(state, "positional_embedding", file)) - 1) * patch
    head_width = settings["vision_cfg"].get("head_width", HEAD_WIDTH)
    if width % head_width:
        raise UserError(f"{file} holds a tower {width} numbers wide, which heads of {head_width} do not fill: correct "
                        f"head_width in {CONFIG}")  # fmt: skip
    config = CLIPVisionConfig(
        hidden_size=width, patch_size=patch, image_size=image_size, num_attention_heads=width // head_width,
        intermediate_size=len(tensor(state, "transformer.resblocks.0.mlp.c_fc.weight", file)),
        num_hidden_layers=count_layers(state, r"transformer\.resblocks\.", file),
        projection_dim=tensor(state, "proj", file).shape[1],
        hidden_act="quick_gelu" if settings.get("quick_gelu") else "gelu",
    )  # fmt: skip
    model = CLIPVisionModelWithProjection(config)
    fill(model, {"visual_projection.weight": state.pop("proj").T.contiguous(), **_renamed(state)}, file)
    size = {"height": image_size, "width": image_size}
    processor = CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size=size, **colors)
    with atomic_path(out) as partial, quietly():
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        (partial / CARD).write_text(card, encoding="utf-8")
    return out


def _read_state(file: Path) -> State:
    if file.suffix != ".safetensors":
        return read_state(file, (MARK,), what="a CLIP ViT of open_clip")
    with one_line_errors(str(file), "CLIP of open_clip"):
        state = {name: each.float() for name, each in load_file(file).items()}
    if MARK not in state:
        raise UserError(
            f"{file} is no checkpoint of a CLIP ViT of open_clip: it has no {MARK}; name the kind that it is"
        )
    refuse_non_finite(state, str(file), what="CLIP of open_clip")
    return state


def _read_config(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the model's settings and the processor's colors. Raises UserError if they are not beside the file."""
    place = file.with_name(CONFIG)
    try:
        content = read_object(place)
        settings, preprocessing = content.get("model_cfg", content), content.get("preprocess_cfg", {})
        vision = settings["vision_cfg"]
        strange = {"pool_type": vision.get("pool_type", "tok") != "tok", "timm_model_name": "timm_model_name" in vision,
                   "resize_mode": preprocessing.get("resize_mode", "shortest") != "shortest"}  # fmt: skip
        if type(head := vision.get("head_width", HEAD_WIDTH)) is not int or head < 1:
            raise ValueError("head_width")
        colors = {name: preprocessing[name] for name in ("mean", "std") if name in preprocessing}
        if not _are_colors(colors.get("mean", [0, 0, 0]), 0) or not _are_colors(colors.get("std", [1, 1, 1]), 0.001):
            raise ValueError("mean or std")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{place} is missing or no config of open_clip ({type(error).__name__}); put the one of the model's "
            "repository there, or that of open_clip/model_configs"
        ) from error
    if any(strange.values()):
        name = next(name for name, is_strange in strange.items() if is_strange)
        raise UserError(f"{place} sets {name}, which only other models than CLIP's own ViT have; give one of those")
    return settings, {f"image_{name}": value for name, value in colors.items()}


def _are_colors(value: Any, least: float) -> bool:
    """Return whether a setting is a number between `least` and 1 for each of red, green and blue."""
    numbers = value if isinstance(value, list) else []
    return len(numbers) == 3 and all(type(each) in (int, float) and least <= each <= 1 for each in numbers)


def _renamed(state: State) -> State:
    """Return the tensors of the tower under transformers' names, with queries, keys and values apart."""
    renamed: State = {}
    for name, each in state.items():
        for pattern, new in NAMES.items():
            name = re.sub(pattern, new, name)
        name = f"vision_model.{name}"
        if ".in_proj_" in name:
            for which, third in zip("qkv", torch.chunk(each, 3), strict=True):
                renamed[name.replace("in_proj_", f"{which}_proj.")] = third.contiguous()
        else:
            renamed[name] = each
    return renamed
