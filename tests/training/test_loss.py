"""Packed captions have the loss and gradients of padded ones, in chunks and in every precision. They need no whole
vocabulary matrix, and none sees another."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import random_batch, random_captioner
from torch.backends.cuda import fp16_bf16_reduction_math_sdp_allowed
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.models import batches
from helpers.config import Config
from helpers.data.batches import IGNORE, Batch
from helpers.language.freezing import freeze
from helpers.training.loss import CaptionLoss
from helpers.training.packing import CAPTIONS_PER_ROW, pack


def gradients(captioner, loss) -> dict[str, torch.Tensor]:
    captioner.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in captioner.named_parameters() if p.grad is not None}


@settings(deadline=None, max_examples=30)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40), prefix=st.integers(1, 6))
def test_everything_is_packed_once_and_with_little_padding(lengths, prefix):
    batch = random_batch(lengths)
    packed = pack(batch, prefix)
    assert packed.targets.tolist() == batch.labels[batch.labels != IGNORE].tolist()
    sizes = [prefix + length - 1 for length in lengths]
    for caption, size in enumerate(sizes):
        places = packed.caption_of == caption
        assert packed.positions[places].tolist() == list(range(size))
        assert packed.tokens[places][prefix:].tolist() == batch.input_ids[caption, : size - prefix].tolist()
    rows = -(-len(lengths) // CAPTIONS_PER_ROW)
    assert packed.tokens.shape[0] == rows
    assert packed.tokens.shape[1] <= sum(sizes) / rows + max(sizes)


def test_real_lengths_leave_four_percent_of_padding():
    stream, places, needed = batches(), 0, 0
    for _ in range(50):
        packed = pack(next(stream), prefix_length=4)
        places += packed.tokens.numel()
        needed += (packed.caption_of < 64).sum().item()
    assert 1 < places / needed < 1.04


@pytest.mark.parametrize("freezing", ["full", "first-and-last", "frozen", "lora"])
@pytest.mark.parametrize(("chunk", "rows", "words"), [(7, 3, 50), (1024, 64, 4096)])
def test_packed_equals_padded_in_loss_and_gradients(monkeypatch, freezing, chunk, rows, words):
    for name, value in (("CHUNK", chunk), ("ROWS", rows), ("SLICE", words)):
        monkeypatch.setattr(f"helpers.training.loss.{name}", value)
    captioner = random_captioner().eval()
    freeze(captioner.gpt2, Config(freezing=freezing))
    batch = random_batch([3, 1, 9, 20, 14, 5, 11, 2, 30, 8, 8, 17])
    padded = captioner(batch.input_ids, embeddings=batch.embeddings, labels=batch.labels).loss
    wanted = gradients(captioner, padded)
    packed = CaptionLoss(captioner)(pack(batch, captioner.config.prefix_length))
    assert packed.item() == pytest.approx(padded.item(), rel=1e-5)
    found = gradients(captioner, packed * 3)  # a factor on the loss is a factor on its gradient
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name] / 3, gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item())


def test_a_caption_does_not_see_its_neighbours():
    likelihood = CaptionLoss(random_captioner().eval())
    one, two = random_batch([5, 9, 12], seed=1), random_batch([5, 9, 12], seed=2)
    mixed = Batch(*(torch.cat([a[:1], b[1:]]) for a, b in zip(one, two, strict=True)))
    nats, among_others = (likelihood.nats(pack(batch, 4)) for batch in (one, mixed))
    torch.testing.assert_close(nats[:5], among_others[:5], rtol=1e-5, atol=1e-5)
    assert likelihood(pack(one, 4)).item() == pytest.approx(nats.mean().item(), rel=1e-5)


def test_in_bfloat16_it_is_the_same_within_its_precision():
    captioner = random_captioner().eval()
    batch = random_batch([5, 9, 12, 20])
    exact = CaptionLoss(captioner)(pack(batch, 4))
    wanted = gradients(captioner, exact)
    with torch.autocast("cpu", torch.bfloat16):
        rough = CaptionLoss(captioner)(pack(batch, 4))
    found = gradients(captioner, rough)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.01)
    weight = "gpt2.transformer.wte.weight"
    assert torch.nn.functional.cosine_similarity(found[weight].flatten(), wanted[weight].flatten(), dim=0) > 0.99


def test_attention_multiplies_in_the_precision_asked_for():
    """Keep bfloat16: by default, PyTorch converts queries, keys and weights to float32 for its plain products."""
    precisions = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.bmm.default:
                precisions.update(tensor.dtype for tensor in args)
            return function(*args, **(kwargs or {}))

    likelihood, allowed = CaptionLoss(random_captioner()), fp16_bf16_reduction_math_sdp_allowed()
    with Watch(), torch.autocast("cpu", torch.bfloat16):
        likelihood(pack(random_batch([30, 20, 10]), 4)).backward()
    assert precisions == {torch.bfloat16}
    assert fp16_bf16_reduction_math_sdp_allowed() == allowed


def test_the_vocabulary_matrix_is_never_whole(monkeypatch):
    """Make no tensor with more than CHUNK rows of logits, and in float32 none with more than ROWS."""
    monkeypatch.setattr("helpers.training.loss.CHUNK", 8)
    monkeypatch.setattr("helpers.training.loss.ROWS", 4)
    captioner = random_captioner().eval()
    seen = {torch.float32: set(), torch.bfloat16: set()}

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            # Contiguous only: the transposed weights have as many columns, but are a view.
            if isinstance(made, torch.Tensor) and made.shape[1:] == (vocabulary,) and made.is_contiguous():
                seen[made.dtype].add(len(made))
            return made

    vocabulary, packed = captioner.config.text_config.vocab_size, pack(random_batch([30, 20, 10]), 4)
    with Watch(), torch.autocast("cpu", torch.bfloat16):
        CaptionLoss(captioner)(packed)
    assert max(seen[torch.float32]) == 4
    assert max(seen[torch.bfloat16]) == 8
