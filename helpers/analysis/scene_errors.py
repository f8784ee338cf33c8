"""The wrong captions of drawn scenes by kind of error, and a choice of captions to look at."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
import pandas as pd

from ..data.scene_captions import Scene, is_right, read_caption

UNREADABLE = "no scene"  # the kind of failure of a caption that states no scene


def by_quality(quality: pd.Series, number: int = 4) -> dict[str, list[str]]:
    """Return `number` image names each for "best", "typical" and "worst": the highest, the middle and the lowest.

    quality: a score per image, higher is better, indexed by image name.
    """
    ordered = list(quality.sort_values(ascending=False, kind="stable").index)
    middle = max(0, (len(ordered) - number) // 2)
    return {
        "best": ordered[:number],
        "typical": ordered[middle : middle + number],
        "worst": ordered[-number:],
    }


def failures_by_kind(written: Mapping[str, str], facts: Mapping[str, Scene]) -> dict[str, list[str]]:
    """Return the names of the images whose caption is wrong, by kind of failure, the most frequent kind first.

    written: captions by image name. facts: scenes by image name. An image may stand under several kinds.
    """
    kinds: dict[str, list[str]] = {}
    for name, caption in written.items():
        for kind in failure_kinds(caption, facts[name]):
            kinds.setdefault(kind, []).append(name)
    return dict(sorted(kinds.items(), key=lambda item: -len(item[1])))


def failure_kinds(caption: str, scene: Scene) -> list[str]:
    """Return the kinds of failure of a caption of `scene`; [] if it is right.

    Kinds are background, count, color, shape, binding (right colors and shapes, but each on the other's object) and
    relation (right objects in another arrangement); a caption that states no scene has the one kind "no scene".
    """
    stated = read_caption(caption)
    if stated is None:
        return [UNREADABLE]
    things, truth = _objects(stated), _objects(scene)
    alike = Counter if len(things) == len(truth) else set  # with a wrong count, numbers of colors are not compared
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
    """Return (color, shape) of each object; if two stand in a relation, the left or the upper one comes first."""
    if scene.relation is None:
        return [(scene.color, scene.shape)] * scene.count
    return [(scene.color, scene.shape), (scene.other_color, scene.other_shape)]


def share_right(names: Sequence[str], written: Sequence[str], facts: Mapping[str, Scene]) -> float:
    """Return the share of captions, 0 to 1, that state every fact of their drawn scene, and nothing else.

    names, written: N images and the caption of each. facts: scenes by image name.
    """
    return float(np.mean([is_right(caption, facts[name]) for name, caption in zip(names, written, strict=True)]))


def wrong_facts(caption: str, scene: Scene) -> list[str] | None:
    """Return the names of the facts that a caption of `scene` gets wrong; [] if it is right.

    Returns None if the caption cannot be read: it states no scene, so there are no facts to count.
    """
    stated = read_caption(caption)
    if stated is None:
        return None
    return [field.name for field in fields(Scene) if getattr(stated, field.name) != getattr(scene, field.name)]
