"""The drawn world: small pictures with captions in Flickr30k's layout, and the truth in a file of its own.

A folder with `results.csv` and `flickr30k_images/`, as Kaggle's data set has them, and `facts.json`, which is read only
to judge captions and to pretrain the small CLIP. Picture number i of a seed is always the same.
"""

import csv
import io
import json
import math
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from tqdm import tqdm

from ..errors import UserError
from ..runtime.files import atomic_path, only_one, read_json, sweep_partial, write_json, write_text
from .scene_captions import Scene, captions_of, random_scene

SIZE = 64  # pixels, both ways
SUPERSAMPLING = 4  # each pixel is the mean of 4 x 4 drawn ones, so that edges are smooth
PAINT = {
    "red": (214, 40, 40), "green": (46, 158, 73), "blue": (45, 99, 226), "yellow": (250, 214, 40),
    "purple": (139, 52, 182), "orange": (245, 130, 24),
    "white": (250, 249, 246), "gray": (150, 154, 160), "black": (26, 27, 33), "pink": (250, 190, 212),
}  # fmt: skip


# Where the middles of the objects stand, in pixels; one arrangement is chosen at random.
ARRANGEMENTS = {
    1: [[(32, 32)]],
    2: [[(17, 32), (47, 32)], [(32, 17), (32, 47)], [(18, 18), (46, 46)], [(46, 18), (18, 46)]],
    3: [[(32, 17), (17, 46), (47, 46)], [(17, 18), (47, 18), (32, 47)]],
    4: [[(17, 17), (47, 17), (17, 47), (47, 47)]],
    "left": [[(17, 32), (47, 32)]],
    "above": [[(32, 17), (32, 47)]],
}


def draw_scene(scene: Scene, rng: random.Random) -> Image.Image:
    """Draw a scene, RGB, 64 x 64 pixels. Place, size and tilt vary a little with `rng`; the facts do not."""
    canvas = Image.new("RGB", (SIZE * SUPERSAMPLING, SIZE * SUPERSAMPLING), PAINT[scene.background])
    draw = ImageDraw.Draw(canvas)
    middles = rng.choice(ARRANGEMENTS[scene.relation or scene.count])
    alone = len(middles) == 1
    radius = rng.uniform(14, 18) if alone else rng.uniform(10.5, 12.5)
    shift = 5 if alone else 2
    for number, (x, y) in enumerate(middles):
        second = scene.relation is not None and number == 1
        color, shape = (scene.other_color, scene.other_shape) if second else (scene.color, scene.shape)
        x, y = x + rng.uniform(-shift, shift), y + rng.uniform(-shift, shift)
        outline = _outline(
            shape, x, y, radius=radius * rng.uniform(0.95, 1.05), tilt=math.radians(rng.uniform(-10, 10))
        )
        draw.polygon([(px * SUPERSAMPLING, py * SUPERSAMPLING) for px, py in outline], fill=PAINT[color])
    return canvas.reduce(SUPERSAMPLING)


def _outline(shape: str, x: float, y: float, *, radius: float, tilt: float) -> list[tuple[float, float]]:
    """Return the corners of a shape around (x, y) in pixels. All shapes of one radius look about equally large."""
    if shape == "circle":
        points = [(math.cos(t), math.sin(t)) for t in _angles(48)]
    elif shape == "square":
        points = [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]
    elif shape == "triangle":
        points = [(1.25 * math.sin(t), 0.2 - 1.25 * math.cos(t)) for t in _angles(3)]
    elif shape == "star":
        radii = (1.25, 0.5)
        points = [(radii[i % 2] * math.sin(t), 0.05 - radii[i % 2] * math.cos(t)) for i, t in enumerate(_angles(10))]
    else:  # a heart, by its well known curve
        curve = [(16 * math.sin(t) ** 3, math.cos(t), math.cos(2 * t), math.cos(3 * t), math.cos(4 * t))
                 for t in _angles(60)]  # fmt: skip
        points = [(a / 15, -(13 * b - 5 * c - 2 * d - e) / 15 - 0.15) for a, b, c, d, e in curve]
    cos, sin = math.cos(tilt), math.sin(tilt)
    return [(x + radius * (px * cos - py * sin), y + radius * (px * sin + py * cos)) for px, py in points]


def _angles(number: int) -> list[float]:
    return [2 * math.pi * i / number for i in range(number)]


def draw_world(folder: str | Path, *, images: int, seed: int = 0) -> Path:
    """Draw a world of `images` pictures with five captions each into `folder`; return the folder.

    Continues a drawing that was stopped, leaves a finished world of the same size and seed alone, and waits while
    another process draws it. Raises UserError if the folder holds anything else.
    """
    folder = Path(folder)
    if images < 1:
        raise UserError(f"images is {images}, but a world needs at least 1 picture")
    with only_one(folder, "drawing a world"):
        return _draw(folder, images, seed)


def _draw(folder: Path, images: int, seed: int) -> Path:
    _begin_world(folder, {"images": images, "seed": seed})
    if (folder / "facts.json").exists():  # it is written last
        return folder
    pictures = folder / "flickr30k_images"
    pictures.mkdir(exist_ok=True)
    sweep_partial(pictures)
    facts, rows = {}, [("image_name", " comment_number", " comment")]  # the spaces are Flickr30k's own
    for number in tqdm(range(images), desc="drawing", unit="picture"):
        name, scene, rng = _begin_picture(number, seed)
        facts[name] = asdict(scene)
        rows += [(name, f" {i}", f" {caption}") for i, caption in enumerate(captions_of(scene, rng))]
        if not (pictures / name).exists():
            with atomic_path(pictures / name) as partial:
                draw_scene(scene, rng).save(partial, format="png")
    write_text(folder / "results.csv", _as_table(rows))
    write_json(folder / "facts.json", facts)
    return folder


def scenes_of_world(*, images: int, seed: int) -> dict[str, Scene]:
    """Return the scene of each picture of a drawn world by image name, without drawing it."""
    return {name: scene for name, scene, _ in (_begin_picture(number, seed) for number in range(images))}


def _begin_picture(number: int, seed: int) -> tuple[str, Scene, random.Random]:
    """Return the name and the scene of a picture, and the random numbers that go on to its captions and its drawing."""
    rng = random.Random(f"{seed}/{number}")
    return f"scene-{number:05d}.png", random_scene(rng), rng


def read_facts(path: str | Path) -> dict[str, Scene]:
    """Read the truth of a drawn world: the scene of each image name. Raises UserError if there is no such file."""
    try:
        return {name: _scene(values) for name, values in read_json(path).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no facts.json of a drawn world ({error}); make one with: clipxgpt draw") from error


def _scene(values: dict[str, Any]) -> Scene:
    """Return the scene of a picture's facts. Raises TypeError on other fields or types."""
    scene = Scene(**values)
    texts = {name: value for name, value in asdict(scene).items() if name != "count"}
    if type(scene.count) is not int or not all(isinstance(value, str | None) for value in texts.values()):
        raise TypeError(f"{values} is no scene")
    return scene


def _begin_world(folder: Path, world: dict[str, int]) -> None:
    """Record the world in `world.json` before the first picture is drawn, or check the record that is there."""
    file = folder / "world.json"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the drawn world")
    if file.exists():
        try:
            found = read_json(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file} is damaged ({error}); give the drawn world a new folder") from error
        if found != world:
            said = json.dumps(found)[:80]
            raise UserError(f"{folder} holds another drawn world, {said}; give {json.dumps(world)} its own folder")
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no drawn world; name a new or an empty folder")
    else:
        write_text(file, json.dumps(world))


def _as_table(rows: list[tuple[str, ...]]) -> str:
    table = io.StringIO()
    csv.writer(table, delimiter="|", lineterminator="\n").writerows(rows)
    return table.getvalue()
