import pytest
import torch

from helpers.config import Config
from helpers.errors import UserError
from helpers.models.captioner_config import CaptionerConfig
from helpers.models.mapping import MAPPERS, build_mapper


def small(kind: str, prefix_length: int = 4, heads: int = 4) -> torch.nn.Module:
    """Return a mapping module of two layers, D = 32, E = 48, without dropout."""
    config = Config(mapper=kind, prefix_length=prefix_length, mapper_layers=2, mapper_heads=heads, dropout=0.0)
    return build_mapper(config, 32, 48)


@pytest.mark.parametrize("kind", MAPPERS)
@pytest.mark.parametrize("prefix_length", [1, 4, 20])
def test_shape(kind, prefix_length):
    mapper = small(kind, prefix_length)
    assert mapper(torch.randn(5, 32)).shape == (5, prefix_length, 48)


@pytest.mark.parametrize("kind", MAPPERS)
def test_each_image_is_mapped_alone(kind):
    """The original fed [B, D] to its encoder, so the images of a batch attended to each other."""
    torch.manual_seed(0)
    mapper = small(kind).eval()
    batch = torch.randn(6, 32)
    together = mapper(batch)
    for row in range(6):
        torch.testing.assert_close(together[row], mapper(batch[row : row + 1])[0])


@pytest.mark.parametrize("kind", MAPPERS)
def test_every_weight_takes_part(kind):
    mapper = small(kind)
    mapper(torch.randn(3, 32)).pow(2).sum().backward()
    assert [name for name, weight in mapper.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("kind", ["encoder", "queries"])
class TestPatches:
    """A sequence [B, S, D] instead of one vector per picture."""

    def test_shape_and_every_weight_takes_part(self, kind):
        mapper = small(kind)
        prefix = mapper(torch.randn(5, 10, 32))
        assert prefix.shape == (5, 4, 48)
        prefix.pow(2).sum().backward()
        assert [name for name, weight in mapper.named_parameters() if weight.grad is None] == []

    def test_each_image_is_mapped_alone(self, kind):
        mapper = small(kind).eval()
        batch = torch.randn(6, 10, 32)
        together = mapper(batch)
        for row in range(6):
            torch.testing.assert_close(together[row], mapper(batch[row : row + 1])[0])

    def test_every_patch_counts(self, kind):
        batch = torch.randn(1, 10, 32, requires_grad=True)
        small(kind)(batch).pow(2).sum().backward()
        assert (batch.grad.abs().sum(dim=2) > 0).all()

    def test_one_vector_is_a_sequence_of_one(self, kind):
        mapper = small(kind).eval()
        batch = torch.randn(6, 32)
        assert torch.equal(mapper(batch), mapper(batch.unsqueeze(1)))


def test_an_mlp_takes_no_patches():
    with pytest.raises(UserError, match=r"not \[5, 10, 32\]: choose queries or encoder for patches"):
        small("mlp")(torch.randn(5, 10, 32))


def test_unknown_mapper_and_heads_that_do_not_divide():
    with pytest.raises(UserError, match=r"mapper is 'transformer', but must be one of mlp, encoder, queries"):
        build_mapper(CaptionerConfig(mapper="transformer"), 32, 48)
    with pytest.raises(UserError, match=r"mapper_heads is 5, but must divide the width of the encoder mapper, 32"):
        small("encoder", heads=5)
