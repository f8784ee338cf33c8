"""The original project's captioners (github.com/jmisilo/clip-gpt-captioning), small and large, as folders of ours.

Their files hold CLIP's vision tower, `ie`, the mapping module, `mp`, and GPT-2, `td`. Their code adds GPT-2's position
embeddings by hand before GPT-2 adds them: they are doubled here, which is the same. How their captions begin is in
models/processors.py.
"""

import math
from pathlib import Path

from transformers import CLIPVisionConfig

from ..encoders.processor import CLIPImageProcessor
from ..encoders.vision import build_tower
from ..errors import UserError
from ..models.captioner import Captioner
from ..models.captioner_config import CaptionerConfig
from ..models.writer import CaptionWriter
from .folder import CAPTIONERS_FILES, MADE, captioner_card, refuse_other
from .tensors import HEAD_WIDTH, State, build_gpt2, count_layers, fill, part, read_state, refuse_others, tensor

HEADS = 16  # of the mapping module, in both sizes
DROPOUT = 0.1  # of the mapping module, if it is trained further; 0.08 in the large one
POSITIONS = "embeddings.position_ids"  # a list of numbers that older versions of transformers saved


def convert_original(file: str | Path, out: str | Path, *, gpt2: str = "") -> Path:
    """Save a captioner of the original project as a folder for CaptionWriter.load, and return the folder.

    file: its state dict, alone or as "model_state_dict" in a checkpoint. gpt2: where GPT-2's tokenizer is, a name on
    the hub or a folder; "" is the hub's GPT-2 of that width. Raises UserError if the file is of another kind, if the
    tokenizer does not fit, or if `out` holds something else.
    """
    file, out = Path(file), Path(out)
    card = captioner_card("the original project", file)
    refuse_other(out, card, MADE | CAPTIONERS_FILES)
    state = read_state(file, ("mp.mapper.weight",), what="the original project")
    refuse_others(state, ("ie.model.", "mp.", "td.model."), file, what="the original project")
    tower = part(state, "ie.model.")
    vision = _vision_config(tower, file)
    text = part(state, "td.model.")
    text["transformer.wpe.weight"] = 2 * tensor(text, "transformer.wpe.weight", file)
    language, tokenizer = build_gpt2(text, file, gpt2)
    mapper = part(state, "mp.")
    prefix, width = len(tensor(mapper, "mapper.weight", file)) // language.config.n_embd, vision.hidden_size
    if width != language.config.n_embd:
        raise UserError(
            f"{file} has a CLIP {width} wide and a GPT-2 {language.config.n_embd} wide, but in the original project "
            "both are the same; name the kind that it is"
        )
    shapes = CaptionerConfig(
        vision_config=vision, text_config=language.config, mapper="original", prefix_length=prefix,
        mapper_layers=count_layers(mapper, r"transformer_encoder\.layers\.", file), mapper_heads=HEADS, dropout=DROPOUT,
        original_start=True,
    )  # fmt: skip
    captioner = Captioner(shapes, build_tower(vision, "pooled"), language)
    wrapped = "vision_model." if any(name.startswith("vision_model.") for name in captioner.clip.state_dict()) else ""
    fill(captioner.clip, {wrapped + name: each for name, each in tower.items() if name != POSITIONS}, file)
    renamed = {
        name.replace("transformer_encoder.", "encoder.").replace("mapper.", "output."): each
        for name, each in mapper.items()
    }
    fill(captioner.mapper, renamed, file)
    size = {"height": vision.image_size, "width": vision.image_size}
    processor = CLIPImageProcessor(size={"shortest_edge": vision.image_size}, crop_size=size)
    CaptionWriter(captioner.eval(), tokenizer, processor).save(out, card=card)
    return out


def _vision_config(tower: State, file: Path) -> CLIPVisionConfig:
    """Return the config of OpenAI's CLIP vision tower with these tensors."""
    width, _, patch, _ = tensor(tower, "embeddings.patch_embedding.weight", file, dimensions=4).shape
    places = len(tensor(tower, "embeddings.position_embedding.weight", file)) - 1  # without the class token
    return CLIPVisionConfig(
        hidden_size=width, patch_size=patch, image_size=math.isqrt(places) * patch,
        intermediate_size=len(tensor(tower, "encoder.layers.0.mlp.fc1.weight", file)),
        num_hidden_layers=count_layers(tower, r"encoder\.layers\.", file),
        num_attention_heads=max(1, width // HEAD_WIDTH), hidden_act="quick_gelu",
    )  # fmt: skip
