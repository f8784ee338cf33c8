"""The device, precision and threads to compute with, chosen by running real operations, with the reason in words."""

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
from torch.backends.cuda import allow_fp16_bf16_reduction_math_sdp, fp16_bf16_reduction_math_sdp_allowed
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import UserError

NATIVE_GAIN = 1.5  # bfloat16 counts as computed in hardware from this many times the speed of float32
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SMALL_MODEL = 20_000_000  # parameters below which a model computes on one thread
ALL_THREADS = torch.get_num_threads()  # PyTorch's own choice on this machine
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # mallopt's names for its parameters, from malloc.h
KEPT_BYTES = 10**9  # freed memory that the process may keep

_model_sizes: list[int] = []  # parameters of the models that this process has loaded


@dataclass(frozen=True)
class Choice:
    """A device, the precision to compute in ("fp32", "fp16" or "bf16"), and the reason."""

    device: torch.device
    precision: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision]

    def __str__(self) -> str:
        return f"{self.device} in {self.precision}: {self.reason}"


def choose_accelerator(precision: str = "auto") -> Choice:
    """Return the best device that works here. Raises UserError if there is a card that PyTorch cannot use.

    If that is the CPU, this process keeps its freed memory from now on (`keep_freed_memory`).
    """
    if torch.cuda.is_available():
        choice = _judge_card(torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0), _error_on("cuda"))
    elif torch.backends.mps.is_available() and _error_on("mps") is None:
        choice = Choice(torch.device("mps"), "fp32", "an Apple GPU")
    else:
        keep_freed_memory()
        choice = _judge_cpu(_gain_of_bfloat16() if precision == "auto" else 0.0)
    if precision == "auto":
        return choice
    if precision == "fp16" and choice.device.type == "cpu":  # where Accelerate would compute in fp32 without a word
        return Choice(choice.device, "fp32", f"{choice.reason}; fp16 was asked for, which only GPUs train in")
    return Choice(choice.device, precision, f"{choice.reason}; {precision} was asked for")


def use_threads_for(parameters: int) -> None:
    """Let PyTorch compute on one thread if every model so far is small, else on all; called for each loaded model.

    parameters: the size of the model that was just loaded. On an idle machine two threads make a small model 1.6 times
    as fast; beside other work they spin while they wait for each other, and make it 8 times as slow
    (benchmarks/README.md). If OMP_NUM_THREADS is set, it decides.
    """
    _model_sizes.append(parameters)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1 if max(_model_sizes) < SMALL_MODEL else ALL_THREADS)


def keep_freed_memory() -> None:
    """Keep up to KEPT_BYTES of freed memory for the next allocations. Does nothing if the C library is not glibc.

    By default glibc returns large pieces to the system at once, and the system maps and clears the pages again for
    each new piece. Training steps and captioning allocate and free tensors of tens of megabytes all the time: on a CPU
    this took a tenth of a training step and a sixth of a beam search (benchmarks/README.md).
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(MMAP_MAX, 0)  # a piece with a mapping of its own is always returned, and above 32 MB each has one
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)


@contextmanager
def attention_on(device: torch.device) -> Iterator[None]:
    """Choose how attention is computed on that device.

    On a card not by cuDNN, which compiles a kernel for each new shape, and packed batches nearly all have their own
    (benchmarks/README.md). On a CPU by plain matrix products, which are faster than the fused kernel for short texts,
    above all in bfloat16, if PyTorch may really compute in it.
    """
    if device.type != "cpu":
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            yield
        return
    allowed = fp16_bf16_reduction_math_sdp_allowed()
    allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        allow_fp16_bf16_reduction_math_sdp(allowed)


def used_memory(device: torch.device) -> float:
    """Return the GB (10^9 bytes) that this process holds: a card's memory at its peak, else the machine's now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e9
    return psutil.Process().memory_info().rss / 1e9


def device_memory(device: torch.device) -> float:
    """Return the GB (10^9 bytes) of memory that the card has, or the machine if `device` is its CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 1e9
    return psutil.virtual_memory().total / 1e9


def _judge_card(name: str, capability: tuple[int, int], error: str | None) -> Choice:
    """Choose for a CUDA card of this compute capability. error: how an operation on it failed, or None."""
    sm = f"sm_{capability[0]}{capability[1]}"
    if error is not None:
        raise UserError(
            f"{name} ({sm}) is here, but PyTorch {torch.__version__} cannot run on it ({error}): `{_install_line()}` "
            "brings the kernels of cards since sm_50, or hide the card with CUDA_VISIBLE_DEVICES="
        )
    if capability >= (8, 0):
        return Choice(torch.device("cuda"), "bf16", f"{name} ({sm}) computes bfloat16 natively")
    if capability >= (7, 0):
        return Choice(torch.device("cuda"), "fp16", f"{name} ({sm}) is fast in float16 and only emulates bfloat16")
    return Choice(torch.device("cuda"), "fp32", f"{name} ({sm}) gains hardly any time from float16")


def _judge_cpu(gain: float) -> Choice:
    """Choose for a CPU whose bfloat16 products are `gain` times as fast as its float32 products."""
    reason = "no GPU that PyTorch can use"
    if gain >= NATIVE_GAIN:
        return Choice(torch.device("cpu"), "bf16", f"{reason}; this CPU computes bfloat16 natively")
    return Choice(torch.device("cpu"), "fp32", reason)


def _gain_of_bfloat16(size: int = 512) -> float:
    """Return float32's time for a matrix product over bfloat16's: 2 to 6 in hardware, far below 1 if emulated."""
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix, seconds = torch.ones(size, size, dtype=dtype), []
        for _ in range(5):
            begun = time.perf_counter()
            matrix @ matrix
            seconds.append(time.perf_counter() - begun)
        times[dtype] = min(seconds)
    return times[torch.float32] / times[torch.bfloat16]


def _install_line() -> str:
    """Return the command that installs PyTorch with the old cards' kernels, which CUDA 12.6 builds up to 2.14 have.

    It names the build beside the version, or pip would accept the installed build of that version.
    """
    version = torch.__version__.split("+")[0]
    major, minor = (int(part) for part in version.split(".")[:2])
    version = version if (major, minor) <= (2, 14) else "2.14.0"
    return f"pip install torch=={version}+cu126 --index-url https://download.pytorch.org/whl/cu126"


def _error_on(device: str) -> str | None:
    """Return how a small matrix product on `device` fails, or None if it works."""
    try:
        (torch.ones(8, 8, device=device) @ torch.ones(8, 8, device=device)).sum().item()
    except RuntimeError as error:  # "no kernel image is available for execution on the device" is one of these
        return str(error).splitlines()[0]
    return None
