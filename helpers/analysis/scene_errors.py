"""The wrong captions of drawn scenes by kind of error, and a choice of captions to look at."""

from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
import pandas as pd

from ..data.scene_captions import Scene, is_right, read_caption

UNREADABLE = "unreadable"  # the kind of error of a caption that states no scene of this world
Thing = tuple[str, str]  # the color and the shape of an object


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
    """Return the names of the images whose caption is wrong, by kind of error, the most frequent kind first.

    written: captions by image name. facts: scenes by image name. An image may stand under several kinds.
    """
    kinds: dict[str, list[str]] = {}
    for name, caption in written.items():
        for kind in failure_kinds(caption, facts[name]):
            kinds.setdefault(kind, []).append(name)
    return dict(sorted(kinds.items(), key=lambda item: -len(item[1])))


def failure_kinds(caption: str, scene: Scene) -> list[str]:
    """Return the kinds of error of a caption of `scene`, each once; [] if it is right.

    They are those of `wrong_facts`, or the one kind "unreadable" if the caption cannot be read.
    """
    errors = wrong_facts(caption, scene)
    return [UNREADABLE] if errors is None else list(dict.fromkeys(errors))


def wrong_facts(caption: str, scene: Scene) -> list[str] | None:
    """Return each error in the facts of a caption of `scene` by its kind; [] if it is right.

    Returns None if the caption cannot be read: it states no scene, so there are no errors to count. Kinds are
    background, count, relation ("above" for "left of"), color and shape (one for each object with a wrong one), and
    swap: two objects in each other's places, or with each other's colors or shapes. Among the ways to explain a caption
    the one with the fewest errors counts, so a swap is one error, not two or four.
    """
    stated = read_caption(caption)
    if stated is None:
        return None
    errors = ["background"] if stated.background != scene.background else []
    things, truth = _objects(stated), _objects(scene)
    if len(things) != len(truth):
        errors.append("count")
    if None not in (stated.relation, scene.relation):
        moved = stated.relation != scene.relation  # then the order of the objects says nothing
        turned = [*([] if moved else ["swap"]), *_pair_errors(things[::-1], truth)]
        return errors + ["relation"] * moved + min(_pair_errors(things, truth), turned, key=len)
    few, many = sorted((things, truth), key=len)
    matches = (set(zip(few, order, strict=True)) for order in permutations(many, len(few)))
    return errors + min((_attribute_errors(match) for match in matches), key=len)


def _pair_errors(things: list[Thing], truth: list[Thing]) -> list[str]:
    """Return the errors in two objects, each compared with the one in its place; a swap of colors or shapes is one."""
    errors: list[str] = []
    for kind, stated, true in zip(("color", "shape"), zip(*things, strict=True), zip(*truth, strict=True), strict=True):
        if stated != true and stated == true[::-1]:
            errors.append("swap")
        else:
            errors += [kind for one, other in zip(stated, true, strict=True) if one != other]
    return errors


def _attribute_errors(match: set[tuple[Thing, Thing]]) -> list[str]:
    """Return the errors of objects that are matched with others, both (color, shape)."""
    return [kind for one, other in sorted(match) for kind, a, b in zip(("color", "shape"), one, other, strict=True)
            if a != b]  # fmt: skip


def _objects(scene: Scene) -> list[Thing]:
    """Return (color, shape) of each object; if two stand in a relation, the left or the upper one comes first."""
    if scene.relation is None:
        return [(scene.color, scene.shape)] * scene.count
    return [(scene.color, scene.shape), (scene.other_color, scene.other_shape)]


def share_right(names: Sequence[str], written: Sequence[str], facts: Mapping[str, Scene]) -> float:
    """Return the share of captions, 0 to 1, that state every fact of their drawn scene, and nothing else.

    names, written: N images and the caption of each. facts: scenes by image name.
    """
    return float(np.mean([is_right(caption, facts[name]) for name, caption in zip(names, written, strict=True)]))
