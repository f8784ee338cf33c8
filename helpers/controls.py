"""Controls: what the same decoding gives without the picture, and what copying the nearest training caption gives."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch.nn import functional as F

from .captioner import Captioner
from .embeddings import EmbeddingCache
from .errors import UserError
from .information import derangement

CONTROLS = {  # what each is, in the words of metrics.json
    "shuffled": "shuffled",
    "mean": "mean",
    "nearest": "none: a caption of the nearest training picture",
}
AT_A_TIME = 256  # pictures that are compared with all training pictures


def shuffled(embeddings: torch.Tensor) -> torch.Tensor:
    """Each of the embeddings [N, D] in the place of another one."""
    return embeddings[derangement(len(embeddings), seed=0)]


def mean(captioner: Captioner, embeddings: torch.Tensor) -> torch.Tensor:
    """In place of each embedding [N, D] the mean of the training images': no picture in particular."""
    return captioner.embedding_mean.cpu().expand_as(embeddings)


def nearest_images(embeddings: torch.Tensor, cache: EmbeddingCache, names: Sequence[str]) -> list[str]:
    """For each embedding [N, D] the one of the images `names` whose cached embedding has the highest cosine with it."""
    known = F.normalize(cache.rows(names), dim=1)  # [M, D]
    parts = F.normalize(embeddings, dim=1).split(AT_A_TIME)
    return [names[place] for part in parts for place in (part @ known.T).argmax(dim=1).tolist()]


def nearest_captions(
    embeddings: torch.Tensor, cache: EmbeddingCache, training: pd.DataFrame, names: Sequence[str]
) -> list[str]:
    """For each image the first caption in `training` (image_name, caption) of the training picture nearest to it.

    names: of the images that are captioned. Raises UserError where no training picture has an embedding, and where one
    of them is among `names`, for it would find its own caption.
    """
    known = set(cache.image_names)
    captions = training[training.image_name.isin(known)].drop_duplicates("image_name").set_index("image_name").caption
    if captions.empty:
        raise UserError("no training picture has an embedding, so none is nearest: embed those of the train split too")
    if leaked := sorted(set(names) & set(captions.index)):
        raise UserError(f"{len(leaked)} of the pictures are training pictures, such as {leaked[0]}: they are their own "
                        "nearest; evaluate held-out ones")  # fmt: skip
    return list(captions[nearest_images(embeddings, cache, list(captions.index))])
