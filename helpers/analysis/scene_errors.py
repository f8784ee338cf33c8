"""Which pictures to look at: the best, typical and worst captions, and the failures by kind."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import pandas as pd

from ..data.scene_captions import Scene, is_right, read_caption

UNREADABLE = "no scene"  # the kind of a caption that states none


def by_quality(quality: pd.Series, number: int = 4) -> dict[str, list[str]]:
    """The image names with the highest quality, those around the median, and the lowest: `number` of each."""
    ordered = list(quality.sort_values(ascending=False, kind="stable").index)
    middle = max(0, (len(ordered) - number) // 2)
    return {
        "best": ordered[:number],
        "typical": ordered[middle : middle + number],
        "worst": ordered[-number:],
    }


def failures_by_kind(captions: Mapping[str, str], facts: Mapping[str, Scene]) -> dict[str, list[str]]:
    """The images whose caption is wrong, by what is wrong with it, the most frequent kind first."""
    kinds: dict[str, list[str]] = {}
    for name, caption in captions.items():
        for kind in failure_kinds(caption, facts[name]):
            kinds.setdefault(kind, []).append(name)
    return dict(sorted(kinds.items(), key=lambda item: -len(item[1])))


def failure_kinds(caption: str, scene: Scene) -> list[str]:
    """What a caption of `scene` gets wrong: background, count, color, shape, binding or relation; [] of a right one.

    binding: the right colors and the right shapes, but each on the other's object. relation: the right objects in
    another arrangement.
    """
    stated = read_caption(caption)
    if stated is None:
        return [UNREADABLE]
    things, truth = _objects(stated), _objects(scene)
    alike = Counter if len(things) == len(truth) else set  # a wrong count alone is no wrong color
    wrong = {
        "background": stated.background != scene.background,
        "count": len(things) != len(truth),
        "color": alike(color for color, _ in things) != alike(color for color, _ in truth),
        "shape": alike(shape for _, shape in things) != alike(shape for _, shape in truth),
    }
    if wrong["color"] or wrong["shape"]:
        wrong["relation"] = None not in (stated.relation, scene.relation) and stated.relation != scene.relation
    elif not wrong["count"]:
        wrong["binding"] = Counter(things) != Counter(truth)
        wrong["relation"] = not wrong["binding"] and (stated.relation, things) != (scene.relation, truth)
    return [kind for kind, is_wrong in wrong.items() if is_wrong]


def _objects(scene: Scene) -> list[tuple[str, str]]:
    """(color, shape) of each object; of two in a relation, the left or the upper one first."""
    if scene.relation is None:
        return [(scene.color, scene.shape)] * scene.count
    return [(scene.color, scene.shape), (scene.other_color, scene.other_shape)]


def share_right(names: list[str], captions: list[str], facts: dict[str, Scene]) -> float:
    """The share of captions in which every fact of the drawn scene is stated and right."""
    return float(np.mean([is_right(caption, facts[name]) for name, caption in zip(names, captions, strict=True)]))


def wrong_facts(caption: str, scene: Scene) -> list[str]:
    """The names of the facts that a caption of `scene` gets wrong; ["unreadable"] where it states no scene."""
    stated = read_caption(caption)
    if stated is None:
        return ["unreadable"]
    return [field.name for field in fields(Scene) if getattr(stated, field.name) != getattr(scene, field.name)]
