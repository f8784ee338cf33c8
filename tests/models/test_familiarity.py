"""A captioner knows which pictures are like those that it was trained on, also after it was saved and loaded."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from small_models import random_captioner

from helpers.data.build_cache import open_cache
from helpers.data.dataset import open_data
from helpers.data.scenes import draw_world
from helpers.models.familiarity import Familiarity
from helpers.models.loading import load_encoder
from helpers.models.writer import CaptionWriter
from helpers.presets import preset


def flat(number: int, seed: int, directions: int = 8, width: int = 40) -> torch.Tensor:
    """Vectors near a plane of a few directions, the same plane for every seed."""
    plane = torch.randn(directions, width, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    inside = torch.randn(number, directions, generator=generator) @ plane
    return inside + 0.1 * torch.randn(number, width, generator=generator)


def test_what_is_held_out_is_familiar_and_what_leaves_the_plane_is_not():
    known = Familiarity(40)
    assert known(flat(5, 1)) is None
    known.know(flat(400, 0))
    assert (known(flat(1000, 1)) > 1).float().mean() < 0.06
    aside = flat(200, 2) + torch.randn(200, 40, generator=torch.Generator().manual_seed(3))
    assert (known(aside) > 1).all()
    assert (known(10 * flat(200, 4)) > 1).float().mean() > 0.9


@pytest.mark.parametrize("number", [2, 5, 30])
def test_few_images_are_enough_for_a_number(number):
    known = Familiarity(40)
    known.know(flat(number, 0))
    assert known(flat(20, 1)).isfinite().all()


def test_more_images_become_familiar_and_the_first_ones_stay_so():
    known = Familiarity(40)
    known.know(flat(400, 0))
    before, others = known(flat(400, 5)), 3 * flat(100, 6)
    known.know(others)
    assert (known(others) > 1).float().mean() < 0.03
    assert (known(flat(400, 5)) <= before).all()


def test_it_is_saved_with_the_captioner_and_an_older_one_has_none(tmp_path):
    captioner = random_captioner(familiarity=True)
    embeddings = torch.randn(60, 32)
    assert captioner.strangeness(embeddings) is None
    captioner.prepare_for(embeddings)
    captioner.save_pretrained(tmp_path)
    again = type(captioner).from_pretrained(tmp_path)
    assert torch.equal(again.strangeness(embeddings), captioner.strangeness(embeddings))
    older = random_captioner()
    older.prepare_for(embeddings)
    assert older.strangeness(embeddings) is None
    assert not any("familiarity" in name for name in older.state_dict())


def test_the_shipped_encoder_tells_drawn_scenes_from_anything_else(tmp_path):
    world = draw_world(tmp_path / "world", images=1000)
    data = open_data(world / "flickr30k_images", world / "results.csv")
    cache = open_cache(data, preset("tiny"), tmp_path / "cache")
    captioner = CaptionWriter.assemble(preset("tiny"), load_encoder("tiny")).captioner
    captioner.prepare_for(cache.rows(data.image_names("train")))
    held_out = cache.rows([*data.image_names("val"), *data.image_names("test")])
    assert (captioner.strangeness(held_out) > 1).float().mean() <= 0.05
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(8)]
    photo = Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB")
    *strange, of_photo = captioner.strangeness(load_encoder("tiny").embed([*noise, photo])).tolist()
    assert of_photo > 1
    assert sum(value > 1 for value in strange) >= 7
