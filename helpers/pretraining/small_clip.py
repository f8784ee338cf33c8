"""A small CLIP trained from scratch to match pictures with captions and, if facts are known, to name them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import trange
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from ..encoders.locked_clip import LockedClip
from ..encoders.processor import CLIPImageProcessor
from ..training.optimizer import lr_at
from .recipe import Recipe

TEXT_TOKENS = 40  # tokens of the longest caption that the text tower reads, end-of-text included
PROJECTION = 128  # width of the space in which pictures and captions are compared
TwoTowers = CLIPModel | LockedClip
MAX_LOGIT_SCALE = 4.6052  # ln 100, the bound that CLIP itself was trained with


def build_clip(recipe: Recipe, *, vocabulary: int, end_of_text: int) -> CLIPModel:
    """Return an untrained CLIP of the recipe's shape. vocabulary: tokens. end_of_text: the id of that token.

    A text is `caption tokens, end-of-text, padding`, and the text tower pools at the end-of-text. Raises ValueError if
    that token's id is 2, because transformers then pools at the highest id.

    transformers starts position embeddings at a standard deviation of 0.02, far below that of a patch at this width.
    The tower then hardly knows the place of a patch and learns "left of" late or never. They start at 0.5 here.
    """
    if end_of_text == 2:
        raise ValueError("end_of_text is 2, but CLIPTextModel then pools at the highest id: use another id")
    shared = {"hidden_act": "gelu", "projection_dim": PROJECTION}
    vision = CLIPVisionConfig(
        hidden_size=recipe.width, intermediate_size=4 * recipe.width, num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.width // 32, image_size=recipe.image_size, patch_size=recipe.patch, **shared,
    )  # fmt: skip
    text = CLIPTextConfig(
        hidden_size=recipe.text_width, intermediate_size=4 * recipe.text_width, num_hidden_layers=recipe.text_layers,
        num_attention_heads=recipe.text_width // 32, vocab_size=vocabulary, max_position_embeddings=TEXT_TOKENS,
        bos_token_id=end_of_text, eos_token_id=end_of_text, pad_token_id=end_of_text, **shared,
    )  # fmt: skip
    config = CLIPConfig(vision_config=vision.to_dict(), text_config=text.to_dict(), projection_dim=PROJECTION)
    clip = CLIPModel(config)
    with torch.no_grad():
        clip.vision_model.embeddings.position_embedding.weight.normal_(std=0.5)
    return clip


def build_processor(size: int) -> CLIPImageProcessor:
    """Return CLIP's own preprocessing at `size` pixels: shortest edge, center crop, CLIP's mean and std of colors."""
    return CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def pixel_values(pictures: torch.Tensor, processor: CLIPImageProcessor) -> torch.Tensor:
    """Return uint8 pictures [B, 3, S, S] as the float32 [B, 3, S, S] that `processor` makes of the same pictures."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (processor.image_mean, processor.image_std))
    return (pictures / 255 - mean) / std


def train_clip(
    clip: CLIPModel,
    processor: CLIPImageProcessor,
    recipe: Recipe,
    *,
    pictures: torch.Tensor,
    texts: list[list[list[int]]],
    classes: torch.Tensor | None = None,
    sizes: Sequence[int] = (),
) -> tuple[list[float], nn.Linear | None]:
    """Train CLIP; return the loss of every step and, if there are classes, the linear layer that names the facts.

    pictures: uint8 [N, 3, S, S]. texts: for each picture the token ids of its captions. classes: int64 [N, F], the
    class of each of F facts. sizes: the number of classes of each fact. They add a classification loss on the pooled
    embedding, because an embedding that only learned to match captions retrieves well, but the facts can hardly be
    read from it.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    heads = nn.Linear(clip.vision_embed_dim, sum(sizes)) if sizes else None
    parameters = [*clip.parameters(), *(heads.parameters() if heads else ())]
    optimizer = torch.optim.AdamW(decay_matrices(parameters, 0.05))
    losses: list[float] = []
    order = torch.empty(0, dtype=torch.long)
    batch = min(recipe.clip_batch, len(pictures))
    clip.train()
    for step in (bar := trange(recipe.clip_steps, desc="clip", unit="step")):
        if len(order) < batch:
            order = torch.randperm(len(pictures), generator=generator)
        rows, order = order[:batch], order[batch:]
        choices = torch.randint(1 << 30, (batch,), generator=generator).tolist()
        captions = [texts[row][choice % len(texts[row])] for row, choice in zip(rows.tolist(), choices, strict=True)]
        shown = _vary(pictures[rows], recipe.image_size, generator) if recipe.vary else pictures[rows]
        pooled = clip.vision_model(pixel_values=pixel_values(shown, processor)).pooler_output  # [B, D]
        image = F.normalize(clip.visual_projection(pooled), dim=1)
        loss = contrastive_loss(clip, image, encode_texts(clip, captions))
        if heads is not None:
            answers = heads(pooled).split(sizes, dim=1)
            loss = loss + recipe.fact_weight * sum(map(F.cross_entropy, answers, classes[rows].unbind(1)))
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, recipe.clip_steps, peak=recipe.clip_lr, warmup=0.1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    clip.eval()
    return losses, heads


def contrastive_loss(clip: TwoTowers, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Return how badly pictures and captions find each other, a scalar in nats (CLIP: Radford et al. 2021).

    image, text: vectors of length 1, float32 [B, PROJECTION]; the rows of both are pairs.
    """
    logits = clip.logit_scale.exp() * image @ text.T  # [B, B]: each picture against each caption
    targets = torch.arange(len(logits))
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def decay_matrices(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups: weight decay on matrices, none on vectors and scalars."""
    matrices, vectors = ([p for p in parameters if (p.ndim > 1) == wanted] for wanted in (True, False))
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0}]


def encode_texts(clip: TwoTowers, texts: list[list[int]]) -> torch.Tensor:
    """Return projected embeddings of length 1, float32 [B, PROJECTION], of token ids without an end-of-text."""
    end_of_text = clip.config.text_config.eos_token_id
    rows = [[*text[: TEXT_TOKENS - 1], end_of_text] for text in texts]
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [end_of_text] * (longest - len(row)) for row in rows])  # [B, T]
    return F.normalize(clip.text_projection(clip.text_model(input_ids=ids).pooler_output), dim=1)


@torch.no_grad()
def embed_pictures(
    clip: CLIPModel, processor: CLIPImageProcessor, pictures: torch.Tensor, *, batch: int = 256
) -> torch.Tensor:
    """Return pooled embeddings before projection, float32 [N, D], of uint8 pictures [N, 3, S, S] in CLIP's own size."""
    parts = [clip.vision_model(pixel_values=pixel_values(part, processor)).pooler_output
             for part in pictures.split(batch)]  # fmt: skip
    return torch.cat(parts)


@torch.no_grad()
def retrieval(clip: TwoTowers, pooled: torch.Tensor, texts: list[list[list[int]]]) -> dict[str, float]:
    """Return how well captions find their own picture among N: R@1, R@10 (shares), median rank, and those of chance.

    pooled: the embeddings of the pictures, float32 [N, D]. texts: for each picture the token ids of its captions.
    """
    image = F.normalize(clip.visual_projection(pooled), dim=1)  # [N, PROJECTION]
    ranks = []
    for row, captions in enumerate(texts):
        scores = encode_texts(clip, captions) @ image.T  # [captions, N]
        ranks += (scores >= scores[:, row : row + 1]).sum(dim=1).tolist()  # a tie counts as a miss
    found = torch.tensor(ranks, dtype=torch.float32)
    number = len(pooled)
    return {
        "pictures": number,
        "r_at_1": (found <= 1).float().mean().item(),
        "r_at_10": (found <= 10).float().mean().item(),
        "median_rank": found.median().item(),
        "chance_r_at_1": 1 / number,
        "chance_r_at_10": min(1.0, 10 / number),
        "chance_median_rank": (number + 1) / 2,
    }


def _vary(pictures: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Return random crops, float32 [B, 3, size, size], of uint8 pictures [B, 3, S, S].

    A crop has 75 to 100 % of the side's length. Half of the crops are mirrored; brightness and contrast vary.
    """
    number = len(pictures)
    scale = torch.empty(number).uniform_(0.75, 1, generator=generator)
    mirror = torch.randint(2, (number,), generator=generator) * 2 - 1
    shift = torch.empty(number, 2).uniform_(-1, 1, generator=generator) * (1 - scale).unsqueeze(1)
    theta = torch.zeros(number, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * mirror, scale, shift
    grid = F.affine_grid(theta, [number, 3, size, size], align_corners=False)
    crops = F.grid_sample(pictures.float(), grid, align_corners=False, padding_mode="reflection")
    light = torch.empty(number, 3, 1, 1).uniform_(0.85, 1.15, generator=generator)
    contrast = torch.empty(number, 1, 1, 1).uniform_(0.75, 1.25, generator=generator)
    middle = crops.mean(dim=(2, 3), keepdim=True)
    return ((crops - middle) * contrast + middle * light).clamp(0, 255)
