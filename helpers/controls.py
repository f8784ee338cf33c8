"""Controls: what the same decoding gives without the picture, and what copying the nearest training caption gives."""

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from torch.nn import functional as F

from .captioner import Captioner
from .embeddings import EmbeddingCache, Rows
from .errors import UserError
from .information import derangement

CONTROLS = {  # what each is, in the words of metrics.json
    "shuffled": "shuffled",
    "mean": "mean",
    "nearest": "none: a caption of the nearest training picture",
}
AT_A_TIME = 256  # pictures that are compared with all training pictures


def shuffled(cache: EmbeddingCache, names: Sequence[str]) -> torch.Tensor | Rows:
    """For each of the images `names` the embedding of another one of them."""
    return cache.array(names[number] for number in derangement(len(names), seed=0).tolist())


def mean(captioner: Captioner, images: int) -> torch.Tensor:
    """For each of so many images the mean embedding of the training images: no picture in particular."""
    return captioner.mean_embedding.cpu().expand(images, *captioner.embedding_shape)


def nearest_images(cache: EmbeddingCache, names: Sequence[str], among: Sequence[str]) -> list[str]:
    """For each of the images `names` the one `among` these whose embedding has the highest cosine with its own."""
    known = torch.cat(list(_vectors(cache, among)))  # [M, D]
    return [among[place] for part in _vectors(cache, names) for place in (part @ known.T).argmax(dim=1).tolist()]


def _vectors(cache: EmbeddingCache, names: Sequence[str]) -> Iterator[torch.Tensor]:
    """Unit vectors [n, D] of images, some at a time; of patches, that of the class token before them."""
    for start in range(0, len(names), AT_A_TIME):
        rows = cache.rows(names[start : start + AT_A_TIME])  # [n, D] or [n, S, D]
        yield F.normalize(rows if rows.ndim == 2 else rows[:, 0], dim=1)


def nearest_captions(cache: EmbeddingCache, names: Sequence[str], training: pd.DataFrame) -> list[str]:
    """For each image the first caption in `training` (image_name, caption) of the training picture nearest to it.

    Raises UserError where no training picture has an embedding, and where one of them is among `names`, for it would
    find its own caption.
    """
    known = set(cache.image_names)
    captions = training[training.image_name.isin(known)].drop_duplicates("image_name").set_index("image_name").caption
    if captions.empty:
        raise UserError("no training picture has an embedding, so none is nearest: embed those of the train split too")
    if leaked := sorted(set(names) & set(captions.index)):
        raise UserError(f"{len(leaked)} of the pictures are training pictures, such as {leaked[0]}: they are their own "
                        "nearest; evaluate held-out ones")  # fmt: skip
    return list(captions[nearest_images(cache, names, list(captions.index))])
