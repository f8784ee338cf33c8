"""The facts of a drawn scene, the English captions that state them, and the exact way back."""

import math
import random
import re
from dataclasses import dataclass

COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle", "star", "heart")
BACKGROUNDS = ("white", "gray", "black", "pink")
NUMBERS = {1: ("a", "one", "a single"), 2: ("two",), 3: ("three",), 4: ("four",)}
RELATIONS = {"left": ("to the left of", "left of"), "above": ("above", "over")}
INVERSES = {"left": ("to the right of", "right of"), "above": ("below", "under")}
GROUPS = 0.4  # share of scenes that are groups
FIRST_FIRST = 0.9  # share of captions that name the left or the upper object first
FRAMES = (
    "{subject} on a {background} background",
    "{subject} against a {background} background",
    "{subject} on plain {background}",
    "{subject} with {background} behind {it}",
    "there {are} {subject} on a {background} background",
    "on a {background} background, {subject}",
    "a {background} background with {subject}",
    "a picture of {subject} on a {background} background",
)


@dataclass(frozen=True)
class Scene:
    """All facts of a picture. Two scenes are equal if all their facts are: a right caption reads back as its scene.

    Either `count` objects of one color and shape, or (if `relation` is set) one object "left" of or "above" another
    that differs from it in color, in shape or in both.
    """

    background: str
    color: str
    shape: str
    count: int = 1
    relation: str | None = None
    other_color: str | None = None
    other_shape: str | None = None


def random_scene(rng: random.Random) -> Scene:
    """Draw a scene at random: two in five are a group of one to four, the others two objects in a relation."""
    background, color, shape = rng.choice(BACKGROUNDS), rng.choice(COLORS), rng.choice(SHAPES)
    if rng.random() < GROUPS:
        return Scene(background, color, shape, count=rng.choice(tuple(NUMBERS)))
    others = [(c, s) for c in COLORS for s in SHAPES if (c, s) != (color, shape)]
    return Scene(background, color, shape, 1, rng.choice(tuple(RELATIONS)), *rng.choice(others))


def scene_entropy() -> float:
    """Return the entropy of `random_scene` in nats: what a caption that states every fact tells of its picture."""
    things = len(COLORS) * len(SHAPES)
    pairs = len(RELATIONS) * (things - 1)  # relations and second objects, given the first
    kinds = GROUPS * math.log(len(NUMBERS) / GROUPS) + (1 - GROUPS) * math.log(pairs / (1 - GROUPS))
    return math.log(len(BACKGROUNDS) * things) + kinds


def wording_entropy() -> float:
    """Return the entropy of a caption whose scene is known, in nats: the choice among all its wordings."""
    numbers = sum(math.log(len(words)) for words in NUMBERS.values()) / len(NUMBERS)
    orders = sum(-share * math.log(share / len(next(iter(words.values()))))
                 for share, words in ((FIRST_FIRST, RELATIONS), (1 - FIRST_FIRST, INVERSES)))  # fmt: skip
    return math.log(len(FRAMES)) + GROUPS * numbers + (1 - GROUPS) * orders


def describe(scene: Scene, rng: random.Random) -> str:
    """Return one caption that states every fact of the scene."""
    return captions_of(scene, rng, number=1)[0]


def captions_of(scene: Scene, rng: random.Random, number: int = 5) -> list[str]:
    """Return captions that each state every fact of the scene, in different sentences; `number` is at most 8."""
    captions = []
    for frame in rng.sample(FRAMES, number):
        usual, turned = _subjects(scene)
        subject = rng.choice(usual if not turned or rng.random() < FIRST_FIRST else turned)
        caption = _sentence(frame, subject, scene)
        captions.append(f"{caption[0].upper()}{caption[1:]}.")
    return captions


def read_caption(text: str) -> Scene | None:
    """Return the scene that a caption states, or None if this world could not have written it.

    Case, spacing and the full stop do not matter; a wrong article or plural, a missing fact or an extra word does.
    """
    words = " ".join(text.lower().split()).removesuffix(".").rstrip()
    backgrounds = re.findall(rf"\b({'|'.join(BACKGROUNDS)})\b", words)
    things = re.findall(rf"\b({'|'.join(COLORS)}) ({'|'.join(SHAPES)})s?\b", words)
    if len(backgrounds) != 1 or not 1 <= len(things) <= 2 or len(set(things)) != len(things):
        return None
    (background,) = backgrounds
    if len(things) == 1:
        guesses = [Scene(background, *things[0], count=count) for count in NUMBERS]
    else:
        (first, second) = things
        guesses = [Scene(background, *a, 1, r, *b) for r in RELATIONS for a, b in ((first, second), (second, first))]
    return next((scene for scene in guesses if words in wordings(scene)), None)


def is_right(caption: str, scene: Scene) -> bool:
    """Tell whether the caption states every fact of the scene, background included, and nothing else."""
    return read_caption(caption) == scene


def wordings(scene: Scene) -> set[str]:
    """Return every wording of a scene in this world, in lower case and without the full stop."""
    usual, turned = _subjects(scene)
    return {_sentence(frame, subject, scene) for frame in FRAMES for subject in (*usual, *turned)}


def _subjects(scene: Scene) -> tuple[list[str], list[str]]:
    """Return the noun phrases for the objects: the usual ones, and those that name the second object first."""
    if scene.relation is None:
        plural = "s" if scene.count > 1 else ""
        numbers = [_article(scene.color) if number == "a" else number for number in NUMBERS[scene.count]]
        return [f"{number} {scene.color} {scene.shape}{plural}" for number in numbers], []
    first = f"{_article(scene.color)} {scene.color} {scene.shape}"
    second = f"{_article(scene.other_color)} {scene.other_color} {scene.other_shape}"
    usual = [f"{first} {phrase} {second}" for phrase in RELATIONS[scene.relation]]
    return usual, [f"{second} {phrase} {first}" for phrase in INVERSES[scene.relation]]


def _sentence(frame: str, subject: str, scene: Scene) -> str:
    it = "it" if scene.count == 1 and scene.relation is None else "them"
    are = "is" if scene.count == 1 else "are"
    return frame.format(subject=subject, background=scene.background, it=it, are=are)


def _article(word: str | None) -> str:
    return "an" if word == "orange" else "a"
