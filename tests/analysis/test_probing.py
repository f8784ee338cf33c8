import pytest
import torch

from helpers.analysis.probing import _read, probe_facts
from helpers.data.scene_captions import COLORS, SHAPES, Scene
from helpers.errors import UserError


def scenes(number: int) -> list[Scene]:
    return [Scene("gray", COLORS[i % 6], SHAPES[i // 6 % 5], count=1 + i % 2) for i in range(number)]


def test_what_lies_in_an_embedding_is_read_and_what_does_not_is_guessed():
    generator = torch.Generator().manual_seed(0)
    color = torch.eye(6)[[COLORS.index(scene.color) for scene in scenes(300)]]
    embeddings = torch.cat([color @ torch.randn(6, 10, generator=generator), torch.ones(300, 1)], dim=1)
    table = probe_facts(embeddings[:200], scenes(200), test=embeddings[200:], test_scenes=scenes(300)[200:]).set_index(
        "fact"
    )
    assert table.probe["color"] == 1.0
    assert table.probe["shape"] < 0.5
    assert table.probe["background"] == table.commonest["background"] == 1.0  # all are gray
    assert 0.1 < table.commonest["color"] < 0.25
    assert table.probe["all"] <= table.probe["shape"]  # every fact of a picture must be read right
    assert table.commonest["all"] <= table.commonest["color"]


def test_more_features_than_pictures_are_read_alike():
    """The smaller system has the same solution: repeated features change nothing but the strength of the penalty."""
    generator = torch.Generator().manual_seed(0)
    features, held_out = torch.randn(40, 30, generator=generator), torch.randn(50, 30, generator=generator)
    one_hot = torch.nn.functional.one_hot(torch.arange(40) % 5).float()
    few = _read(held_out, features, one_hot, 0.1, [5])
    many = _read(held_out.repeat(1, 4), features.repeat(1, 4), one_hot, 0.4, [5])
    assert few.equal(many)
    assert few.unique().numel() == 5


def test_patches_are_refused():
    with pytest.raises(UserError, match=r"one vector per picture, not \[4, 5, 3\]: give \[N, D\], such as token 0"):
        probe_facts(torch.randn(4, 5, 3), scenes(4), test=torch.randn(4, 5, 3), test_scenes=scenes(4))


def test_a_value_that_training_never_showed_is_never_right():
    unseen = [Scene("pink", "red", "star")] * 4
    table = probe_facts(torch.randn(20, 3), scenes(20), test=torch.randn(4, 3), test_scenes=unseen).set_index("fact")
    assert table.probe["background"] == table.commonest["background"] == 0.0
