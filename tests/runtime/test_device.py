import pytest
import torch

from helpers.errors import UserError
from helpers.runtime.device import (
    _gain_of_bfloat16,
    _judge_card,
    _judge_cpu,
    choose_accelerator,
    device_memory,
    used_memory,
)


@pytest.mark.parametrize(
    ("name", "capability", "precision", "reason"),
    [
        ("Tesla P100-PCIE-16GB", (6, 0), "fp32", "gains hardly any time from float16"),
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
    """A P100 with a CUDA 12.8 build: torch.cuda.is_available() says yes, but the first operation fails."""
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


def test_fp16_on_a_cpu_is_fp32_and_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert str(choose_accelerator("fp16")).startswith("cpu in fp32: no GPU that PyTorch can use; fp16 was asked for")


def test_the_way_out_names_the_build(monkeypatch):
    """Require "+cu126", without which pip is satisfied with the installed version."""
    for installed, wanted in (("2.10.0+cu128", "2.10.0"), ("2.14.1", "2.14.1"), ("2.16.0+cu130", "2.14.0")):
        monkeypatch.setattr(torch, "__version__", installed)
        with pytest.raises(UserError, match=rf"`pip install torch=={wanted}\+cu126 --index-url https"):
            _judge_card("Tesla P100-PCIE-16GB", (6, 0), "no kernel image")


def test_an_apple_gpu_that_works_is_taken_in_fp32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for error, device in ((None, "mps"), ("MPS backend out of memory", "cpu")):
        monkeypatch.setattr("helpers.runtime.device._error_on", lambda _device, error=error: error)
        monkeypatch.setattr("helpers.runtime.device._gain_of_bfloat16", lambda: 1.0)
        assert (choose_accelerator().device.type, choose_accelerator().precision) == (device, "fp32")


def test_a_cpu_computes_bfloat16_only_where_its_hardware_does():
    """Judge by the measured gain, with a limit below 2.

    A training step took 27 s in emulated bfloat16 and 6 s in float32. In hardware it took 1.6 s and 4.4 s, on a third
    machine 2.4 s and 4.3 s. The third machine's measured gain varied from 2.0 to 6.2, so a limit of 2 would leave its
    precision to chance.
    """
    assert _judge_cpu(4.4).precision == _judge_cpu(1.9).precision == "bf16"
    assert _judge_cpu(0.2).precision == "fp32"
    assert 0.01 < _gain_of_bfloat16() < 30


def test_what_is_asked_for_is_taken(monkeypatch):
    monkeypatch.setattr("helpers.runtime.device._gain_of_bfloat16", lambda: 4.4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert (choose_accelerator().precision, choose_accelerator("fp32").precision) == ("bf16", "fp32")


def test_memory_is_in_gigabytes():
    cpu = torch.device("cpu")
    assert 0.05 < used_memory(cpu) < device_memory(cpu) < 10_000
