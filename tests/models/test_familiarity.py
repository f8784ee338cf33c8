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


def flat(number: int, seed: int, plane: int = 0, directions: int = 8, width: int = 40) -> torch.Tensor:
    """Vectors near a plane of a few directions, the same plane for every seed; only plane 0 goes through the origin."""
    generator = torch.Generator().manual_seed(99 + plane)
    axes, center = torch.randn(directions, width, generator=generator), torch.randn(width, generator=generator)
    generator = torch.Generator().manual_seed(seed)
    inside = torch.randn(number, directions, generator=generator) @ axes + (3 * center if plane else 0)
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


def test_other_pictures_become_familiar_the_first_stay_so_and_the_rest_stays_strange():
    known = Familiarity(40)
    known.know(flat(400, 0))
    first = known(flat(400, 1))
    for plane, number in ((1, 150), (2, 400)):  # in a third training, too
        assert (known(flat(200, 3, plane=plane)) > 1).all()
        assert known.know(flat(number, 2, plane=plane))
        assert (known(flat(400, 3, plane=plane)) > 1).float().mean() < 0.1
    assert torch.equal(known(flat(400, 1)), first)
    for strange in (flat(200, 3, plane=3), flat(200, 3) + flat(200, 4, plane=1), 10 * flat(200, 4)):
        assert (known(strange) > 1).float().mean() > 0.9
    assert sum(tensor.numel() for tensor in known.buffers()) == 3 * sum(
        tensor.numel() for tensor in Familiarity(40).buffers()
    )


def test_pictures_that_are_familiar_already_change_nothing():
    known = Familiarity(40)
    known.know(flat(400, 0))
    assert known.know(flat(200, 1))
    assert not known.others


def test_too_few_other_pictures_change_nothing():
    known = Familiarity(40)
    known.know(flat(400, 0))
    before = known(flat(20, 1, plane=1))
    assert not known.know(flat(45, 2, plane=1))
    assert torch.equal(known(flat(20, 1, plane=1)), before)
    assert known.know(flat(46, 2, plane=1))
    assert (known(flat(20, 1, plane=1)) < before).all()


def test_it_is_saved_with_the_captioner_and_an_older_one_has_none(tmp_path):
    captioner = random_captioner(familiarity=True)
    embeddings = torch.randn(60, 32)
    assert captioner.strangeness(embeddings) is None
    captioner.prepare_for(embeddings)
    captioner.save_pretrained(tmp_path)
    again = type(captioner).from_pretrained(tmp_path)
    assert torch.equal(again.strangeness(embeddings), captioner.strangeness(embeddings))
    for shift in (5, -5):
        assert captioner.know(shift + torch.randn(60, 32))
    captioner.save_pretrained(tmp_path)
    again = type(captioner).from_pretrained(tmp_path)
    assert (again.strangeness(embeddings + 5) < 2).all()
    assert torch.equal(again.strangeness(embeddings - 5), captioner.strangeness(embeddings - 5))
    older = random_captioner()
    assert older.know(embeddings)
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
