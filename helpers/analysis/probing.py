"""Linear probes: the facts that a linear classifier can read from an embedding."""

from dataclasses import fields

import pandas as pd
import torch

from ..data.scene_captions import Scene
from ..errors import UserError

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # per picture; strengths of the penalty on a probe's weights
CHOOSING = 5  # each fifth training picture is held out to choose among them


def probe_facts(
    train: torch.Tensor, train_scenes: list[Scene], *, test: torch.Tensor, test_scenes: list[Scene]
) -> pd.DataFrame:
    """Fit a linear probe per fact on embeddings `train` [N, D] of drawn scenes, and read the facts of `test` [M, D].

    Returns DataFrame[fact, probe, commonest], one row per fact, and a last row "all". probe: the share of the M scenes
    that is read right. commonest: the share that is right by always naming the commonest value in training. "all" is
    right if every fact is. A fact that a scene lacks, such as the second color of a single object, counts as a value of
    its own. A probe is a ridge regression on the fact's classes; a fifth of `train` chooses the strength of the
    penalty. Raises UserError on patches, [N, S, D].
    """
    if train.ndim != 2:
        raise UserError(f"a probe reads one vector per picture, not {list(train.shape)}: give [N, D], such as token 0")
    mean, std = train.mean(dim=0), train.std(dim=0).clamp_min(1e-6)
    features, held_out = (train - mean) / std, (test - mean) / std
    facts = [field.name for field in fields(Scene)]
    values = {fact: sorted({str(getattr(scene, fact)) for scene in train_scenes}) for fact in facts}
    labels, wanted = (_labels(scenes, values) for scenes in (train_scenes, test_scenes))  # [N, F], [M, F]
    one_hot = torch.cat([torch.nn.functional.one_hot(column, len(values[fact])).float()
                         for fact, column in zip(facts, labels.T, strict=True)], dim=1)  # [N, all values]  # fmt: skip
    sizes = [len(values[fact]) for fact in facts]
    choosing = torch.arange(len(features)) % CHOOSING == 0
    fitting = features[~choosing], one_hot[~choosing]
    right = [(_read(features[choosing], *fitting, ridge, sizes) == labels[choosing]).float().mean() for ridge in RIDGES]
    best = RIDGES[int(torch.stack(right).argmax())]
    read = _read(held_out, features, one_hot, best, sizes) == wanted  # [M, F]
    commonest = labels.mode(dim=0).values == wanted
    rows = [(fact, read[:, place], commonest[:, place]) for place, fact in enumerate(facts)]
    rows.append(("all", read.all(dim=1), commonest.all(dim=1)))
    return pd.DataFrame(
        [{"fact": fact, "probe": one.float().mean().item(), "commonest": other.float().mean().item()}
         for fact, one, other in rows]
    )  # fmt: skip


def _labels(scenes: list[Scene], values: dict[str, list[str]]) -> torch.Tensor:
    """Return the class of each fact of each scene, int64 [N, F]; -1, which no probe reads, if training never had it."""
    place = {fact: {value: number for number, value in enumerate(known)} for fact, known in values.items()}
    return torch.tensor([[place[fact].get(str(getattr(scene, fact)), -1) for fact in values] for scene in scenes])


def _read(
    held_out: torch.Tensor, features: torch.Tensor, one_hot: torch.Tensor, ridge: float, sizes: list[int]
) -> torch.Tensor:
    """Return the class of each fact that probes fitted on `features` [N, D] read from `held_out` [M, D], int64 [M, F].

    one_hot: the classes of each fact beside each other, [N, sum of sizes]. sizes: the number of classes of each fact.
    """
    number, width = features.shape
    middle = one_hot.mean(dim=0)  # the intercept, which is not penalised
    if width <= number:
        gram = features.T @ features + ridge * number * torch.eye(width)
        weights = torch.linalg.solve(gram, features.T @ (one_hot - middle))  # [D, values]
    else:  # the same weights from a smaller system
        gram = features @ features.T + ridge * number * torch.eye(number)
        weights = features.T @ torch.linalg.solve(gram, one_hot - middle)
    scores = (held_out @ weights + middle).split(sizes, dim=1)
    return torch.stack([part.argmax(dim=1) for part in scores], dim=1)
