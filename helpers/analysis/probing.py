"""Linear probes: the facts that a linear classifier can read from an embedding."""

from dataclasses import fields

import pandas as pd
import torch

from ..data.scene_captions import Scene
from ..errors import UserError

RIDGE = 1e-3  # per picture; keeps the least squares solvable if features of the embedding are collinear


def probe_facts(
    train: torch.Tensor, train_scenes: list[Scene], *, test: torch.Tensor, test_scenes: list[Scene]
) -> pd.DataFrame:
    """Fit a linear probe per fact on embeddings `train` [N, D] of drawn scenes, and read the facts of `test` [M, D].

    Returns DataFrame[fact, probe, commonest], one row per fact. probe: the share of the M scenes that is read right.
    commonest: the share that is right by always naming the commonest value in training. A fact that a scene lacks,
    such as the second color of a single object, counts as a value of its own. Raises UserError on patches, [N, S, D].
    """
    if train.ndim != 2:
        raise UserError(f"a probe reads one vector per picture, not {list(train.shape)}: give [N, D], such as token 0")
    mean, std = train.mean(dim=0), train.std(dim=0).clamp_min(1e-6)
    features, held_out = (torch.cat([(x - mean) / std, torch.ones(len(x), 1)], dim=1) for x in (train, test))
    rows = []
    for fact in (field.name for field in fields(Scene)):
        values = sorted({str(getattr(scene, fact)) for scene in train_scenes})
        place = {value: number for number, value in enumerate(values)}
        labels, wanted = (
            torch.tensor([place.get(str(getattr(scene, fact)), -1) for scene in scenes])  # -1: never seen, never read
            for scenes in (train_scenes, test_scenes)
        )
        one_hot = torch.nn.functional.one_hot(labels, len(values)).float()  # [N, values]
        gram = features.T @ features + RIDGE * len(features) * torch.eye(features.shape[1])
        weights = torch.linalg.solve(gram, features.T @ one_hot)  # [D+1, values]
        read = (held_out @ weights).argmax(dim=1)
        commonest = (wanted == labels.mode().values).float().mean().item()
        rows.append({"fact": fact, "probe": (read == wanted).float().mean().item(), "commonest": commonest})
    return pd.DataFrame(rows)
