"""A small CLIP trained from scratch: matching pictures to captions, and naming facts where they are known."""

import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import trange
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from ..models.vision import CLIPImageProcessor
from ..training.optimizer import lr_at

TEXT_TOKENS = 40  # the longest caption the text tower reads, end-of-text included


def build_clip(
    image_size: int, patch: int, width: int, layers: int, text_width: int, text_layers: int,
    vocabulary: int, end_of_text: int, projection: int = 128,
) -> CLIPModel:  # fmt: skip
    """An untrained CLIPModel whose text is `caption tokens, end-of-text, padding` and is pooled at the end-of-text.

    transformers starts position embeddings at a standard deviation of 0.02, far below that of a patch at this width:
    the tower then hardly knows where things stand, and learns "left of" late or never. They start at 0.5 here.
    """
    if end_of_text == 2:
        raise ValueError("CLIPTextModel pools at the highest id, not at the end-of-text, where that is id 2")
    shared = {"hidden_act": "gelu"}
    clip = CLIPModel(
        CLIPConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
                num_attention_heads=width // 32, image_size=image_size, patch_size=patch, projection_dim=projection,
                **shared,
            ).to_dict(),
            text_config=CLIPTextConfig(
                hidden_size=text_width, intermediate_size=4 * text_width, num_hidden_layers=text_layers,
                num_attention_heads=text_width // 32, vocab_size=vocabulary, max_position_embeddings=TEXT_TOKENS,
                bos_token_id=end_of_text, eos_token_id=end_of_text, pad_token_id=end_of_text,
                projection_dim=projection, **shared,
            ).to_dict(),
            projection_dim=projection,
        )
    )  # fmt: skip
    with torch.no_grad():
        clip.vision_model.embeddings.position_embedding.weight.normal_(std=0.5)
    return clip


def build_processor(size: int) -> CLIPImageProcessor:
    """CLIP's own preprocessing at a small size: shortest edge, center crop, CLIP's mean and spread of colors."""
    return CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def pixel_values(pictures: torch.Tensor, processor: CLIPImageProcessor) -> torch.Tensor:
    """Normalised float32 [B, 3, S, S] of uint8 [B, 3, S, S], as `processor` makes them of a picture."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (processor.image_mean, processor.image_std))
    return (pictures / 255 - mean) / std


def train_clip(
    clip: CLIPModel,
    processor: CLIPImageProcessor,
    pictures: torch.Tensor,
    texts: list[list[list[int]]],
    facts: torch.Tensor | None,
    steps: int,
    batch: int,
    peak: float,
    fact_weight: float,
    vary: bool,
    generator: torch.Generator,
) -> tuple[list[float], nn.Linear | None]:
    """Train on pictures, uint8 [N, 3, S, S], and the token ids of each one's captions; return losses and fact heads.

    facts: int64 [N, F], the class of each fact, or None. They add a classification loss on the pooled embedding:
    matching alone reaches good retrieval with an embedding in which the facts can hardly be read.
    vary: crop, mirror and recolor the pictures, which photographs bear and drawn relations do not.
    """
    classes = [] if facts is None else (facts.max(dim=0).values + 1).tolist()
    heads = nn.Linear(clip.vision_embed_dim, sum(classes)) if classes else None
    parameters = [*clip.parameters(), *(heads.parameters() if heads else ())]
    matrices, vectors = ([p for p in parameters if (p.ndim > 1) == wanted] for wanted in (True, False))
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0}])
    losses: list[float] = []
    order = torch.empty(0, dtype=torch.long)
    batch = min(batch, len(pictures))
    clip.train()
    for step in (bar := trange(steps, desc="clip", unit="step")):
        if len(order) < batch:
            order = torch.randperm(len(pictures), generator=generator)
        rows, order = order[:batch], order[batch:]
        choices = torch.randint(1 << 30, (batch,), generator=generator).tolist()
        captions = [texts[row][choice % len(texts[row])] for row, choice in zip(rows.tolist(), choices, strict=True)]
        shown = _vary(pictures[rows], clip.config.vision_config.image_size, generator) if vary else pictures[rows]
        pooled = clip.vision_model(pixel_values=pixel_values(shown, processor)).pooler_output  # [B, D]
        image = F.normalize(clip.visual_projection(pooled), dim=1)
        logits = clip.logit_scale.exp() * image @ encode_texts(clip, captions).T  # [B, B]
        targets = torch.arange(batch)
        loss = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
        if heads is not None:
            answers = heads(pooled).split(classes, dim=1)
            loss = loss + fact_weight * sum(map(F.cross_entropy, answers, facts[rows].unbind(1)))
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, steps, peak, warmup=0.1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(max=4.6052)  # ln 100, CLIP's own bound
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    clip.eval()
    return losses, heads


def encode_texts(clip: CLIPModel, texts: list[list[int]]) -> torch.Tensor:
    """Projected embeddings of length one, float32 [B, projection], of token ids without their end-of-text."""
    end_of_text = clip.config.text_config.eos_token_id
    rows = [[*text[: TEXT_TOKENS - 1], end_of_text] for text in texts]
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [end_of_text] * (longest - len(row)) for row in rows])  # [B, T]
    return F.normalize(clip.text_projection(clip.text_model(input_ids=ids).pooler_output), dim=1)


@torch.no_grad()
def encode_pictures(
    clip: CLIPModel, processor: CLIPImageProcessor, pictures: torch.Tensor, batch: int = 256
) -> torch.Tensor:
    """Pooled embeddings before projection, float32 [N, D], of uint8 pictures at the model's own size."""
    parts = [clip.vision_model(pixel_values=pixel_values(part, processor)).pooler_output
             for part in pictures.split(batch)]  # fmt: skip
    return torch.cat(parts)


@torch.no_grad()
def retrieval(clip: CLIPModel, pooled: torch.Tensor, texts: list[list[list[int]]]) -> dict[str, float]:
    """How well captions find their pictures among N: R@1 and R@10 in shares, the median rank, and what chance gives."""
    image = F.normalize(clip.visual_projection(pooled), dim=1)  # [N, projection]
    ranks = []
    for row, captions in enumerate(texts):
        scores = encode_texts(clip, captions) @ image.T  # [captions, N]
        ranks += (scores >= scores[:, row : row + 1]).sum(dim=1).tolist()  # a tie counts against it
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
    """Random crops [B, 3, size, size] of uint8 [B, 3, S, S]: 75 to 100 % of the side, mirrored or not, recolored."""
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
