"""Captions without the picture, captions copied from training, and what the picture tells in nats."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from tqdm import tqdm
from transformers import PreTrainedModel

from ..data.batches import IGNORE, CaptionBatches
from ..data.embedding_cache import EmbeddingCache, ImageEmbeddings
from ..errors import UserError
from ..models.captioner import Captioner
from ..training.loss import CaptionLoss
from .bootstrap import bootstrap_interval

CONTROLS = {  # by name, what metrics.json says of the embeddings
    "shuffled": "shuffled",
    "mean": "mean",
    "nearest": "none: a caption of the nearest training picture",
}
AT_A_TIME = 256  # pictures that are compared with all training pictures at once
DERANGEMENTS = 5  # shuffles of the embeddings, whose mean is the control


def shuffled(cache: EmbeddingCache, names: Sequence[str]) -> ImageEmbeddings:
    """Return, for each of N images, the embedding of another one of them: [N, D] or [N, S, D]."""
    return cache.of([names[number] for number in derangement(len(names), seed=0).tolist()])


def mean(captioner: Captioner, images: int) -> torch.Tensor:
    """Return the mean embedding of the training images, `images` times: [N, D] or [N, S, D], no picture at all."""
    return captioner.mean_embedding.cpu().expand(images, *captioner.embedding_shape)


def nearest_images(cache: EmbeddingCache, names: Sequence[str], among: Sequence[str]) -> list[str]:
    """Return, for each of the images `names`, the one in `among` whose embedding has the highest cosine with its own.

    Patches are compared by their class token. Raises UserError if an image has no embedding in the cache.
    """
    known = torch.cat(list(_unit_vectors(cache, among)))  # [M, D]
    return [among[place] for part in _unit_vectors(cache, names) for place in (part @ known.T).argmax(dim=1).tolist()]


def nearest_captions(cache: EmbeddingCache, names: Sequence[str], training: pd.DataFrame) -> list[str]:
    """Return, for each image, the first caption of the training picture nearest to it.

    training: the captions table of the train split; pictures that are not in the cache do not count. Raises UserError
    if none is left, or if one of them is among `names`: it would find its own caption.
    """
    known = set(cache.image_names)
    captions = training[training.image_name.isin(known)].drop_duplicates("image_name").set_index("image_name").caption
    if captions.empty:
        raise UserError("no training picture has an embedding, so none is nearest: embed those of the train split too")
    if leaked := sorted(set(names) & set(captions.index)):
        raise UserError(
            f"{len(leaked)} of the pictures are training pictures, such as {leaked[0]}, and each is the nearest to "
            "itself: evaluate held-out ones"
        )
    return list(captions[nearest_images(cache, names, list(captions.index))])


def picture_information(
    captioner: Captioner, batches: CaptionBatches, *, language_model: PreTrainedModel | None = None
) -> dict[str, Any]:
    """Return what the picture tells of the references, and what a wrong picture costs, in nats.

    language_model: the captioner's GPT-2 as it was before the training, if it is known. Raises UserError if it has
    another vocabulary than the captioner.
    nats_per_token_* are mean negative log-likelihoods in nats per reference token: "true" with the image's own
    embedding, "language_model" by the language model alone, "mean" with the mean embedding of the training images, and
    "shuffled" with another image's (the mean of five derangements). "language_model" and "mean" see no picture; the one
    of them that predicts better is what can be known without, and `without_picture` holds its name.
    picture_tells_* is that one minus "true", wrong_picture_costs_* "shuffled" minus "true", mean_embedding_costs_*
    "mean" minus "true": "per_token" and "per_caption", with 95 % intervals from a paired bootstrap over images.
    """
    size = len(batches.image_names)
    variants = [torch.arange(size), None, *(derangement(size, seed) for seed in range(DERANGEMENTS))]
    sums = []  # per variant, float64 [N]: nats summed over each image's reference tokens
    for order in tqdm(variants, desc="likelihood", unit="variant"):
        nats, tokens = _nats_by_image(captioner, batches, order)
        sums.append(nats)
    nats = {"true": sums[0], "mean": sums[1], "shuffled": np.mean(sums[2:], axis=0)}
    if language_model is not None:
        nats["language_model"] = _nats_alone(language_model.to(captioner.device), batches)
    without = min({"language_model", "mean"} & nats.keys(), key=lambda name: nats[name].sum())

    counts = {"token": tokens, "caption": np.bincount(batches.image_of, minlength=size).astype(float)}
    found: dict[str, Any] = {f"nats_per_token_{name}": float(each.sum() / tokens.sum()) for name, each in nats.items()}
    found["without_picture"] = without
    for name, other in (("picture_tells", without), ("wrong_picture_costs", "shuffled"),
                        ("mean_embedding_costs", "mean")):  # fmt: skip
        difference = nats[other] - nats["true"]
        for unit, count in counts.items():
            found[f"{name}_per_{unit}"] = float(difference.sum() / count.sum())
            found[f"{name}_per_{unit}_95_interval"] = list(bootstrap_interval(difference, count))
    return found


def derangement(size: int, seed: int) -> torch.Tensor:
    """Return 0 ... size-1 in a random order that leaves no element in its place, int64 [size]: one long cycle."""
    cycle = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    order = torch.empty_like(cycle)
    order[cycle] = cycle.roll(1)
    return order


def _unit_vectors(cache: EmbeddingCache, names: Sequence[str]) -> Iterator[torch.Tensor]:
    """Yield the images' unit vectors [n, D], some images at a time; of patches, those of the class token."""
    for start in range(0, len(names), AT_A_TIME):
        rows = cache.rows(names[start : start + AT_A_TIME])  # [n, D] or [n, S, D]
        yield F.normalize(rows if rows.ndim == 2 else rows[:, 0], dim=1)


@torch.no_grad()
def _nats_by_image(
    captioner: Captioner, batches: CaptionBatches, order: torch.Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's negative log-likelihood and number of reference tokens, float64 [N] each.

    order: int64 [N], whose embedding each image gets; None gives all of them the mean one.
    """
    nats = torch.zeros(len(batches.image_names), dtype=torch.float64)
    tokens = torch.zeros_like(nats)
    loss, mean_embedding = CaptionLoss(captioner).eval(), captioner.mean_embedding.cpu()
    for rows in batches.in_order():
        images = batches.image_of[rows]
        if order is None:
            embeddings = mean_embedding.expand(len(images), *mean_embedding.shape)
        else:
            embeddings = batches.embeddings[order[images]]
        packed = loss.pack(batches.rows(rows)._replace(embeddings=embeddings))
        image_of = images[packed.caption_of.flatten()[packed.sources].cpu()]  # int64, the image of each token
        nats.index_add_(0, image_of, loss.nats(packed).double().cpu())
        tokens.index_add_(0, image_of, torch.ones(len(image_of), dtype=torch.float64))
    return nats.numpy(), tokens.numpy()


@torch.no_grad()
def _nats_alone(gpt2: PreTrainedModel, batches: CaptionBatches) -> np.ndarray:
    """Return each image's negative log-likelihood by a language model alone, as the beginning of a text."""
    end_of_text, vocabulary = int(batches.tokens[0][-1]), gpt2.config.vocab_size
    if max(int(tokens.max()) for tokens in batches.tokens) >= vocabulary or gpt2.config.eos_token_id != end_of_text:
        raise UserError(
            f"the language model has {vocabulary} tokens and end-of-text {gpt2.config.eos_token_id}, which does not "
            "fit the captioner: give the one that it was trained from"
        )
    nats = torch.zeros(len(batches.image_names), dtype=torch.float64)
    for rows in batches.in_order():
        batch = batches.rows(rows)
        start = torch.full((len(rows), 1), gpt2.config.bos_token_id)
        inputs = torch.cat([start, batch.input_ids[:, :-1]], dim=1).to(gpt2.device)  # [B, T]
        scored = batch.labels != IGNORE
        hidden = gpt2.eval().base_model(inputs, use_cache=False).last_hidden_state[scored]  # [n, E]
        each = F.cross_entropy(
            gpt2.get_output_embeddings()(hidden).float(), batch.labels[scored].to(gpt2.device), reduction="none"
        )
        image_of = batches.image_of[rows].unsqueeze(1).expand_as(scored)[scored]  # int64 [n], the image of each token
        nats.index_add_(0, image_of, each.double().cpu())
    return nats.numpy()
