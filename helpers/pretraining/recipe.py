"""The shapes and the training of a small pair in one frozen object, and the recipes."""

from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import UserError


@dataclass(frozen=True)
class Recipe:
    """Shapes and training of a small CLIP and a small GPT-2.

    The defaults suit the drawn world; helpers/tiny/README.md says what they reach there. Each attention head is 32
    wide, so choose multiples of 32 for the widths.
    """

    # The small CLIP.
    image_size: int = 64  # pixels, width and height of the pictures that CLIP sees
    stored_size: int = 64  # pixels, width and height of the stored training pictures; larger ones leave room for crops
    patch: int = 16  # pixels, width and height
    width: int = 128  # of the image tower: the D of its embeddings
    layers: int = 3  # of the image tower
    text_width: int = 64  # of the text tower
    text_layers: int = 2  # of the text tower
    clip_steps: int = 1800  # optimizer steps
    clip_batch: int = 64  # pictures that a step tells apart
    clip_lr: float = 1e-3  # peak learning rate
    fact_weight: float = 1.0  # of the loss for naming facts, relative to the loss for matching captions
    vary: bool = False  # crop, mirror and recolor: good for photos, but a mirrored "left of" would be wrong

    # The small GPT-2.
    vocabulary: int = 512  # tokens at most, including the 256 bytes and the end-of-text
    lowercase: bool = False  # read and write in lower case, without a full stop at the end: fewer different tokens
    gpt2_width: int = 128  # the E of its input embeddings
    gpt2_layers: int = 3  # Transformer blocks
    gpt2_steps: int = 400  # optimizer steps
    gpt2_batch: int = 16  # rows of 96 tokens
    gpt2_lr: float = 2e-3  # peak learning rate
    gpt2_dropout: float = 0.0  # share of the activations
    gpt2_precision: str = "fp32"  # "auto" takes bfloat16 on a CPU that computes in it

    share_tokens: bool = False  # start CLIP's text tower from GPT-2's token embeddings; needs text_width = gpt2_width
    seed: int = 0  # of weights, order and crops


RECIPES = {
    "drawn": Recipe(),
    # A GPT-2 alone, for captions of photos: 3.9 million parameters.
    "captions": Recipe(
        vocabulary=6000, lowercase=True, gpt2_width=256, gpt2_steps=600, gpt2_batch=32, gpt2_dropout=0.1,
        gpt2_precision="auto",
    ),
    "photos": Recipe(
        image_size=96, stored_size=128, layers=4, text_width=128, clip_steps=800, clip_batch=128, vary=True,
        vocabulary=4096, gpt2_layers=4, gpt2_steps=1200, gpt2_dropout=0.1, share_tokens=True,
    ),
}  # fmt: skip


def choose_recipe(preset: str, **values: Any) -> Recipe:
    """Return the recipe of that name with other values for some of its fields.

    Raises UserError if there is no such recipe or field, or if share_tokens is on and the two widths differ.
    """
    if preset not in RECIPES:
        raise UserError(f"preset is {preset!r}, but must be one of {', '.join(RECIPES)}")
    known = [field.name for field in fields(Recipe)]
    if unknown := sorted(set(values) - set(known)):
        raise UserError(f"a recipe has no field {', '.join(unknown)}; its fields are {', '.join(known)}")
    recipe = replace(RECIPES[preset], **values)
    if recipe.share_tokens and recipe.text_width != recipe.gpt2_width:
        raise UserError(
            f"text_width is {recipe.text_width} and gpt2_width is {recipe.gpt2_width}, but share_tokens needs equal "
            "widths: change one of them, or set share_tokens=False"
        )
    return recipe
