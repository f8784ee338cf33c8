import pytest
import torch

from helpers.accelerator import _judge_card, choose_accelerator
from helpers.errors import UserError


@pytest.mark.parametrize(
    ("name", "capability", "precision", "reason"),
    [
        ("Tesla P100-PCIE-16GB", (6, 0), "fp32", "gains no time from float16"),
        ("Tesla T4", (7, 5), "fp16", "only emulates bfloat16"),
        ("NVIDIA A100-SXM4-40GB", (8, 0), "bf16", "natively"),
        ("NVIDIA H100 80GB HBM3", (9, 0), "bf16", "natively"),
    ],
)
def test_each_card_gets_the_precision_it_is_good_at(name, capability, precision, reason):
    choice = _judge_card(name, capability, error=None)
    assert (choice.device.type, choice.precision) == ("cuda", precision)
    assert reason in str(choice)
    assert name in str(choice)


def test_a_card_without_kernels_is_found_out_with_the_way_out():
    """A P100 under a CUDA 12.8 build: torch.cuda.is_available() says yes, and the first operation fails."""
    with pytest.raises(UserError, match="no kernel image") as error:
        _judge_card(
            "Tesla P100-PCIE-16GB", (6, 0), "CUDA error: no kernel image is available for execution on the device"
        )
    assert "sm_60" in str(error.value)
    assert "https://download.pytorch.org/whl/cu126" in str(error.value)
    assert "\n" not in str(error.value)


def test_here_the_choice_works():
    choice = choose_accelerator()
    assert (torch.ones(2, 2, device=choice.device) * 2).sum().item() == 8
    assert choose_accelerator("bf16").dtype == torch.bfloat16
