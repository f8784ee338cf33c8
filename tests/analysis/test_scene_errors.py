"""Which captions a gallery shows, and the errors of captions by kind."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.analysis.scene_errors import by_quality, failure_kinds, failures_by_kind, share_right, wrong_facts
from helpers.data.scene_captions import Scene, describe, is_right, random_scene

PAIR = Scene("gray", "red", "circle", 1, "left", "blue", "star")
GROUP = Scene("gray", "red", "circle", 3)
RIGHT = "A red circle left of a blue star on plain gray."  # of PAIR


@pytest.mark.parametrize(
    ("scene", "caption", "wrong"),
    [
        (PAIR, RIGHT, []),
        (PAIR, "A blue star to the right of a red circle on plain gray.", []),
        (PAIR, "A red circle left of a blue star on plain pink.", ["background"]),
        (PAIR, "A red circle above a blue star on plain gray.", ["relation"]),
        (PAIR, "A blue star above a red circle on plain gray.", ["relation"]),
        (PAIR, "A blue star left of a red circle on plain gray.", ["swap"]),
        (PAIR, "A blue circle left of a red star on plain gray.", ["swap"]),
        (PAIR, "A red star left of a blue circle on plain gray.", ["swap"]),
        (PAIR, "A blue circle above a red star on plain gray.", ["relation", "swap"]),
        (PAIR, "A blue star left of a green circle on plain gray.", ["swap", "color"]),
        (PAIR, "A red circle left of a green star on plain gray.", ["color"]),
        (PAIR, "A green circle left of a green star on plain gray.", ["color", "color"]),
        (PAIR, "A red circle above a green heart on plain gray.", ["relation", "color", "shape"]),
        (PAIR, "Two red circles on plain gray.", ["color", "shape"]),
        (PAIR, "A red circle on plain gray.", ["count"]),
        (PAIR, "A green circle on plain gray.", ["count", "color"]),
        (PAIR, "A man in a blue shirt.", None),
        (PAIR, "A red circle left of a red circle on plain gray.", None),
        (GROUP, "Two red circles on plain gray.", ["count"]),
        (GROUP, "Three green stars on plain gray.", ["color", "shape"]),
        (GROUP, "Two red stars on plain pink.", ["background", "count", "shape"]),
        (GROUP, "A red circle left of a red star on plain gray.", ["count", "shape"]),
        (GROUP, "", None),
    ],
)
def test_each_error_is_counted_once_by_its_kind(scene, caption, wrong):
    assert wrong_facts(caption, scene) == wrong
    assert failure_kinds(caption, scene) == (["unreadable"] if wrong is None else list(dict.fromkeys(wrong)))
    assert share_right(["a", "b"], [RIGHT, caption], {"a": PAIR, "b": scene}) == (1.0 if wrong == [] else 0.5)


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_caption_has_a_kind_of_failure_exactly_when_it_is_wrong(rng):
    scene, other = random_scene(rng), random_scene(rng)
    for stated in (scene, other):
        caption = describe(stated, rng)
        assert (failure_kinds(caption, scene) == []) == is_right(caption, scene)


def test_failures_are_sorted_the_most_frequent_kind_first():
    written = {
        "a": "Two red circles on plain gray.",
        "b": "Three red circles on plain pink.",
        "c": "Four red circles on plain pink.",
        "d": "Three red circles on plain gray.",
        "e": "Three red circles on plain white.",
    }
    found = failures_by_kind(written, dict.fromkeys(written, GROUP))
    assert list(found.items()) == [("background", ["b", "c", "e"]), ("count", ["a", "c"])]
    assert failures_by_kind({"d": written["d"]}, {"d": GROUP}) == {}


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_swap_is_one_error(rng):
    """Two objects with each other's color, shape or both are one error, however the caption names them."""
    scene = random_scene(rng)
    if scene.relation is None:
        return
    first, second = (scene.color, scene.shape), (scene.other_color, scene.other_shape)
    for one, other in (
        (second, first), ((second[0], first[1]), (first[0], second[1])), ((first[0], second[1]), (second[0], first[1]))
    ):  # fmt: skip
        swapped = Scene(scene.background, *one, 1, scene.relation, *other)
        assert wrong_facts(describe(swapped, rng), scene) == ([] if swapped == scene else ["swap"])


def test_the_best_the_typical_and_the_worst():
    quality = pd.Series({f"{number}": float(number) for number in (3, 0, 8, 1, 6, 4, 5, 7, 2)})
    assert by_quality(quality, 2) == {"best": ["8", "7"], "typical": ["5", "4"], "worst": ["1", "0"]}
    assert by_quality(quality, 1)["typical"] == ["4"]
    assert set(by_quality(quality.head(1), 3)["worst"]) == {"3"}
