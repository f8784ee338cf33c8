import pytest
import torch

from helpers.config import MAPPERS
from helpers.errors import UserError
from helpers.models.mapping import build_mapper


@pytest.mark.parametrize("kind", MAPPERS)
@pytest.mark.parametrize("prefix_length", [1, 4, 20])
def test_shape(kind, prefix_length):
    mapper = build_mapper(kind, 32, prefix_length, 48, layers=2, heads=4, dropout=0.0)
    assert mapper(torch.randn(5, 32)).shape == (5, prefix_length, 48)


@pytest.mark.parametrize("kind", MAPPERS)
def test_each_image_is_mapped_alone(kind):
    """The original fed [B, D] to its encoder: the images of a batch attended to each other."""
    torch.manual_seed(0)
    mapper = build_mapper(kind, 32, 4, 48, layers=2, heads=4, dropout=0.0).eval()
    batch = torch.randn(6, 32)
    together = mapper(batch)
    for row in range(6):
        torch.testing.assert_close(together[row], mapper(batch[row : row + 1])[0])


@pytest.mark.parametrize("kind", MAPPERS)
def test_every_weight_takes_part(kind):
    mapper = build_mapper(kind, 32, 4, 48, layers=2, heads=4, dropout=0.0)
    mapper(torch.randn(3, 32)).pow(2).sum().backward()
    assert [name for name, weight in mapper.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("kind", ["encoder", "queries"])
class TestPatches:
    """A sequence [B, S, D] in place of one vector a picture."""

    def test_shape_and_every_weight_takes_part(self, kind):
        mapper = build_mapper(kind, 32, 4, 48, layers=2, heads=4, dropout=0.0)
        prefix = mapper(torch.randn(5, 10, 32))
        assert prefix.shape == (5, 4, 48)
        prefix.pow(2).sum().backward()
        assert [name for name, weight in mapper.named_parameters() if weight.grad is None] == []

    def test_each_image_is_mapped_alone(self, kind):
        mapper = build_mapper(kind, 32, 4, 48, layers=2, heads=4, dropout=0.0).eval()
        batch = torch.randn(6, 10, 32)
        together = mapper(batch)
        for row in range(6):
            torch.testing.assert_close(together[row], mapper(batch[row : row + 1])[0])

    def test_every_patch_counts(self, kind):
        batch = torch.randn(1, 10, 32, requires_grad=True)
        build_mapper(kind, 32, 4, 48, layers=2, heads=4, dropout=0.0)(batch).pow(2).sum().backward()
        assert (batch.grad.abs().sum(dim=2) > 0).all()

    def test_one_vector_is_a_sequence_of_one(self, kind):
        mapper = build_mapper(kind, 32, 4, 48, layers=2, heads=4, dropout=0.0).eval()
        batch = torch.randn(6, 32)
        assert torch.equal(mapper(batch), mapper(batch.unsqueeze(1)))


def test_an_mlp_takes_no_patches():
    with pytest.raises(UserError, match=r"not \[5, 10, 32\]: choose queries or encoder for patches"):
        build_mapper("mlp", 32, 4, 48, 2, 4, 0.0)(torch.randn(5, 10, 32))


def test_unknown_mapper_and_heads_that_do_not_divide():
    with pytest.raises(UserError, match=r"mapper is 'transformer', but must be one of mlp, encoder, queries"):
        build_mapper("transformer", 32, 4, 48, 2, 4, 0.0)
    with pytest.raises(UserError, match=r"mapper_heads is 5, but must divide the width of the encoder mapper, 32"):
        build_mapper("encoder", 32, 4, 48, 2, 5, 0.0)
