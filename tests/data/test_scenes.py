"""The drawn world: captions can be read back exactly, a seed gives the same pictures, folders are not mixed up."""

import csv
import math
import random
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.data.scene_captions import (
    BACKGROUNDS,
    COLORS,
    FRAMES,
    NUMBERS,
    RELATIONS,
    SHAPES,
    Scene,
    captions_of,
    describe,
    is_right,
    random_scene,
    read_caption,
    scene_entropy,
    wording_entropy,
    wordings,
)
from helpers.data.scenes import draw_scene, draw_world, read_facts, scenes_of_world
from helpers.errors import UserError

THINGS = [(color, shape) for color in COLORS for shape in SHAPES]
GROUPS = [Scene(background, *thing, count=count) for background in BACKGROUNDS for thing in THINGS for count in NUMBERS]
scenes = st.randoms(use_true_random=False).map(random_scene)


def test_every_wording_of_every_group_reads_back_as_that_group():
    assert all(read_caption(caption) == scene for scene in GROUPS for caption in wordings(scene))


@settings(max_examples=200, deadline=None)
@given(scenes)
def test_every_wording_of_a_scene_reads_back_as_that_scene(scene):
    assert all(read_caption(caption) == scene for caption in wordings(scene))


def test_no_caption_words_two_scenes():
    pairs = [Scene("gray", *a, 1, relation, *b) for relation in RELATIONS for a in THINGS for b in THINGS if a != b]
    captions = [caption for scene in pairs for caption in wordings(scene)]
    assert len(captions) == len(set(captions))


@given(scenes, st.randoms(use_true_random=False))
def test_five_captions_are_five_sentences_that_state_every_fact(scene, rng):
    captions = captions_of(scene, rng)
    assert len(set(captions)) == 5
    assert all(is_right(caption, scene) for caption in captions)
    assert is_right(describe(scene, rng), scene)


PAIR = Scene("gray", "red", "circle", 1, "left", "blue", "star")
GROUP = Scene("white", "orange", "heart", count=3)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(PAIR, background="pink"),
        replace(PAIR, color="green"),
        replace(PAIR, shape="square"),
        replace(PAIR, relation="above"),
        replace(PAIR, other_color="green"),
        replace(PAIR, other_shape="square"),
        Scene("gray", "blue", "star", 1, "left", "red", "circle"),
        Scene("gray", "red", "circle"),
    ],
)
def test_a_caption_wrong_in_one_fact_is_wrong(wrong):
    assert is_right("A red circle left of a blue star on plain gray.", PAIR)
    assert not any(is_right(caption, PAIR) for caption in wordings(wrong))


@pytest.mark.parametrize("wrong", [replace(GROUP, count=count) for count in (1, 2, 4)])
def test_a_caption_with_another_count_is_wrong(wrong):
    assert is_right("Three orange hearts with white behind them.", GROUP)
    assert not any(is_right(caption, GROUP) for caption in wordings(wrong))


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "A red circle.",
        "A red circle on a gray",
        "A orange circle on plain gray.",
        "Two red circle on plain gray.",
        "There is two red circles on a gray background.",
        "Two red circles with gray behind it.",
        "A red circle left of a red circle on plain gray.",
        "A red circle left of a blue star on plain gray background.",
        "A red circle and a blue star on plain gray.",
        "A red circle on plain gray. A red circle on plain gray.",
        "A red circle on plain purple.",
        "A man in a blue shirt on plain gray.",
        "Three red circles left of a blue star on plain gray.",
    ],
)
def test_what_is_no_full_caption_of_this_world_reads_as_none(caption):
    assert read_caption(caption) is None


def test_case_spacing_and_the_full_stop_do_not_matter():
    assert read_caption("  a RED circle\tto the right  of a blue star on plain gray ") == Scene(
        "gray", "blue", "star", 1, "left", "red", "circle"
    )
    assert read_caption("On a pink background, two red stars .") == Scene("pink", "red", "star", 2)


WORDS = sorted({word for frame in FRAMES for word in frame.split()} | {*COLORS, *SHAPES, *BACKGROUNDS, "left", "of"})


@given(st.text() | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_wild_text_never_raises_and_is_read_only_where_the_world_says_it(text):
    scene = read_caption(text)
    assert scene is None or " ".join(text.lower().split()).removesuffix(".").rstrip() in wordings(scene)


def test_the_first_object_is_named_first_nine_times_in_ten():
    rng = random.Random(0)
    captions = [describe(PAIR, rng) for _ in range(2000)]
    share = np.mean([caption.index("circle") < caption.index("star") for caption in captions])
    assert 0.87 < share < 0.93


def entropy(counts: Counter) -> float:
    return -sum(count / counts.total() * math.log(count / counts.total()) for count in counts.values())


def test_the_entropies_are_those_of_what_is_drawn():
    rng = random.Random(0)
    groups = [scene for scene in (random_scene(rng) for _ in range(20_000)) if scene.relation is None]
    pairs = len(BACKGROUNDS) * len(RELATIONS) * len(THINGS) * (len(THINGS) - 1)
    share = len(groups) / 20_000
    chances = [share / len(GROUPS)] * len(GROUPS) + [(1 - share) / pairs] * pairs
    assert scene_entropy() == pytest.approx(-sum(each * math.log(each) for each in chances), abs=0.02)
    of_scene = [entropy(Counter(describe(scene, rng) for _ in range(10_000)))
                for scene in (*(Scene("white", "red", "star", count=count) for count in NUMBERS), PAIR)]  # fmt: skip
    expected = 0.4 * np.mean(of_scene[:-1]) + 0.6 * of_scene[-1]
    assert wording_entropy() == pytest.approx(expected, abs=0.02)
    assert (round(scene_entropy(), 2), round(wording_entropy(), 2)) == (8.45, 2.80)


def test_a_picture_shows_its_background_and_its_colors():
    picture = np.asarray(draw_scene(Scene("white", "blue", "circle"), random.Random(0)))
    assert picture.shape == (64, 64, 3)
    assert tuple(picture[0, 0]) == (250, 249, 246)
    assert tuple(picture[32, 32]) == (45, 99, 226)


def test_all_objects_lie_within_the_picture():
    rng = random.Random(1)
    for _ in range(300):
        picture = np.asarray(draw_scene(random_scene(rng), rng))
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert np.mean(np.any(border != border[0], axis=1)) < 0.15  # only a corner may touch the edge


def world_bytes(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_world_has_the_layout_of_flickr30k_and_the_truth_apart(tmp_path):
    folder = draw_world(tmp_path / "world", images=6, seed=3)
    with (folder / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="|"))
    assert rows[0] == ["image_name", " comment_number", " comment"]
    assert len(rows) == 1 + 6 * 5
    facts = read_facts(folder / "facts.json")
    assert len(facts) == 6
    for name, _number, caption in rows[1:]:
        assert is_right(caption, facts[name])
        assert Image.open(folder / "flickr30k_images" / name).size == (64, 64)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    first, second, third = (draw_world(tmp_path / str(i), images=8, seed=seed) for i, seed in enumerate((3, 3, 4)))
    assert world_bytes(first) == world_bytes(second)
    assert world_bytes(first) != world_bytes(third)


def test_a_smaller_world_is_the_beginning_of_a_larger_one(tmp_path):
    small, large = draw_world(tmp_path / "small", images=3), draw_world(tmp_path / "large", images=5)
    for number in range(3):
        name = f"flickr30k_images/scene-{number:05d}.png"
        assert (small / name).read_bytes() == (large / name).read_bytes()


def test_a_stopped_world_goes_on_and_a_finished_one_is_left_alone(tmp_path, monkeypatch):
    whole = draw_world(tmp_path / "whole", images=8)
    drawn = []

    def stop_at_the_fifth(scene, rng):
        drawn.append(scene)
        if len(drawn) == 5:
            raise KeyboardInterrupt
        return draw_scene(scene, rng)

    monkeypatch.setattr("helpers.data.scenes.draw_scene", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        draw_world(tmp_path / "stopped", images=8)
    assert not (tmp_path / "stopped" / "facts.json").exists()
    draw_world(tmp_path / "stopped", images=8)
    assert len(drawn) == 5 + 4  # four already existed
    assert world_bytes(tmp_path / "stopped") == world_bytes(whole)
    draw_world(tmp_path / "stopped", images=8)
    assert len(drawn) == 9


@pytest.mark.parametrize("other", [{"images": 4, "seed": 1}, {"images": 5, "seed": 0}])
def test_a_folder_of_another_world_is_refused(tmp_path, other):
    draw_world(tmp_path, images=4, seed=0)
    with pytest.raises(UserError, match="holds another drawn world"):
        draw_world(tmp_path, **other)


def test_a_folder_of_something_else_a_file_and_no_pictures_are_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="holds no drawn world"):
        draw_world(tmp_path, images=4)
    with pytest.raises(UserError, match="is a file"):
        draw_world(tmp_path / "photo.jpg", images=4)
    with pytest.raises(UserError, match="at least 1"):
        draw_world(tmp_path / "new", images=0)


@pytest.mark.parametrize("text", ["", "[]", '{"a.png": {"colour": "red"}}', '{"a.png": 1}'])
def test_a_file_of_another_kind_is_no_truth(tmp_path, text):
    (tmp_path / "facts.json").write_text(text)
    with pytest.raises(UserError, match=r"is no facts\.json"):
        read_facts(tmp_path / "facts.json")
    with pytest.raises(UserError, match=r"is no facts\.json"):
        read_facts(tmp_path / "none.json")


def test_facts_survive_the_file(tmp_path):
    folder = draw_world(tmp_path / "world", images=20)
    facts = read_facts(folder / "facts.json")
    assert asdict(facts["scene-00000.png"])["background"] in BACKGROUNDS
    assert len(set(facts.values())) > 15


def test_the_scenes_of_a_world_are_known_without_drawing_it(tmp_path):
    world = draw_world(tmp_path / "world", images=12, seed=3)
    assert scenes_of_world(images=12, seed=3) == read_facts(world / "facts.json")
