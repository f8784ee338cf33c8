"""ClipCap's published captioners (github.com/rmokady/CLIP_prefix_caption, Mokady et al. 2021) as folders of ours.

Their files hold the mapping module, `clip_project`, and GPT-2, `gpt`; CLIP is not in them. Their embedding is CLIP's
after its projection, and their captions end with a full stop, because ClipCap's training leaves end-of-text out.
"""

import re
from pathlib import Path

from ..encoders.vision import ImageEncoder
from ..errors import UserError
from ..models.captioner import Captioner
from ..models.captioner_config import CaptionerConfig
from ..models.loading import load_encoder
from ..models.writer import CaptionWriter
from .folder import CAPTIONERS_FILES, MADE, captioner_card, refuse_other
from .tensors import State, build_gpt2, count_layers, fill, part, read_state, refuse_others, tensor

CLIPS = {512: "openai/clip-vit-base-patch32", 768: "openai/clip-vit-large-patch14"}  # by the width of their projection
RN50X4 = 640  # width of the projection of CLIP RN50x4, whose embeddings ClipCap divides by their norm
HEADS = 8
MLP, TRANSFORMER = "clip_project.model.0.weight", "clip_project.prefix_const"


def convert_clipcap(
    file: str | Path, out: str | Path, *, clip: str = "", gpt2: str = "", normalised: bool = False
) -> Path:
    """Save a ClipCap captioner as a folder for CaptionWriter.load, and return the folder.

    file: a state dict of ClipCap, such as coco_weights.pt. clip: its image encoder, a name on the hub or a folder; ""
    is the CLIP whose projection is as wide. gpt2: where GPT-2's tokenizer is, by default on the hub. normalised: it was
    trained on embeddings divided by their norm; those of CLIP RN50x4 always are. Raises UserError if the file is of
    another kind, if encoder or tokenizer do not fit, or if `out` holds something else.
    """
    file, out = Path(file), Path(out)
    card = captioner_card("ClipCap", file)
    refuse_other(out, card, MADE | CAPTIONERS_FILES)
    state = read_state(file, (MLP, TRANSFORMER), what="ClipCap")
    refuse_others(state, ("clip_project.", "gpt."), file, what="ClipCap")
    language, tokenizer = build_gpt2(part(state, "gpt."), file, gpt2)
    width, mapper = language.config.n_embd, part(state, "clip_project.")
    design, renamed = _mlp(mapper, file, width) if "model.0.weight" in mapper else _transformer(mapper, file, width)
    first = "hidden.0.weight" if design["mapper"] == "mlp" else "linear.weight"
    embedding = tensor(renamed, first, file).shape[1]
    encoder = _encoder(file, embedding, clip)
    stop = tokenizer(".", add_special_tokens=False)["input_ids"]
    shapes = CaptionerConfig(
        vision_config=encoder.vision.config, text_config=language.config, pooling="projected", dropout=0.0,
        mapper_heads=HEADS, normalised=normalised or embedding == RN50X4, stop_token_id=stop[0], **design,
    )  # fmt: skip
    captioner = Captioner(shapes, encoder.vision, language)
    fill(captioner.mapper, renamed, file)
    CaptionWriter(captioner.eval(), tokenizer, encoder.processor).save(out, card=card)
    return out


def _mlp(state: State, file: Path, width: int) -> tuple[dict[str, object], State]:
    """Return the design of an MLP, and its tensors under our names."""
    renamed = {name.replace("model.0.", "hidden.0.").replace("model.2.", "output."): state[name] for name in state}
    prefix = len(tensor(renamed, "output.weight", file)) // width
    return {"mapper": "mlp", "prefix_length": prefix}, renamed


def _transformer(state: State, file: Path, width: int) -> tuple[dict[str, object], State]:
    """Return the design of a Transformer, and its tensors under our names."""
    design = {
        "mapper": "clipcap", "prefix_length": len(tensor(state, "prefix_const", file)),
        "clip_length": len(tensor(state, "linear.weight", file)) // width,
        "mapper_layers": count_layers(state, r"transformer\.layers\.", file),
    }  # fmt: skip
    renamed = {re.sub(r"^transformer\.|attn\.(?:to_)?|mlp\.", "", name): tensor for name, tensor in state.items()}
    return design, renamed


def _encoder(file: Path, width: int, name: str) -> ImageEncoder:
    """Load the image encoder, and raise UserError if its projection has another width than the mapping module takes."""
    if not (name or width in CLIPS):
        kind = "CLIP RN50x4, which is not among the encoders here" if width == RN50X4 else "no CLIP that is known here"
        raise UserError(f"{file} takes embeddings of {width} numbers, those of {kind}; give by --clip an encoder whose "
                        f"projection has {width}")  # fmt: skip
    encoder = load_encoder(name or CLIPS[width], pooling="projected")
    if encoder.width != width:
        raise UserError(
            f"{file} takes embeddings of {width} numbers, but {name} projects to {encoder.width}; give by --clip the "
            "encoder that it was trained with"
        )
    return encoder
