"""Which device to compute on and in which precision, found by running a real operation, and the reason in words."""

import ctypes
import sys
import time
from dataclasses import dataclass

import psutil
import torch

from ..errors import UserError

NATIVELY = 1.5  # times as fast as float32, from which on bfloat16 counts as computed in hardware, not emulated
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Choice:
    """A device, the precision to compute in ("fp32", "fp16" or "bf16"), and why."""

    device: torch.device
    precision: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision]

    def __str__(self) -> str:
        return f"{self.device} in {self.precision}: {self.reason}"


def choose_accelerator(precision: str = "auto") -> Choice:
    """The best device that really works here. Raises UserError when a card is there that PyTorch cannot use.

    Where that is the CPU, this process keeps its freed memory from now on (allocator.py).
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
    return Choice(choice.device, precision, f"{choice.reason}; {precision} was asked for")


def _judge_card(name: str, capability: tuple[int, int], error: str | None) -> Choice:
    """What to do with a CUDA card of that compute capability on which an operation ended with `error`, or worked."""
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
    """In which precision a CPU computes whose bfloat16 products are `gain` times as fast as its float32 ones."""
    reason = "no GPU that PyTorch can use"
    if gain >= NATIVELY:
        return Choice(torch.device("cpu"), "bf16", f"{reason}; this CPU computes bfloat16 natively")
    return Choice(torch.device("cpu"), "fp32", reason)


def _gain_of_bfloat16(size: int = 512) -> float:
    """Float32's time for a matrix product in bfloat16's: 2 to 6 in hardware, far below 1 where it is emulated."""
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix, seconds = torch.ones(size, size, dtype=dtype), []
        for _ in range(5):
            begun = time.perf_counter()
            matrix @ matrix
            seconds.append(time.perf_counter() - begun)
        times[dtype] = min(seconds)
    return times[torch.float32] / times[torch.bfloat16]


def used_memory(device: torch.device) -> float:
    """GB (10^9 bytes) that this process holds: of a card's memory at its peak, else of the machine's now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e9
    return psutil.Process().memory_info().rss / 1e9


def device_memory(device: torch.device) -> float:
    """GB (10^9 bytes) of memory that the card has, or else the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 1e9
    return psutil.virtual_memory().total / 1e9


def _install_line() -> str:
    """How to get PyTorch with the old cards' kernels: CUDA 12.6 builds have them, up to PyTorch 2.14.

    The version is named with its build, or pip takes the one that is installed for the one that is asked for.
    """
    version = torch.__version__.split("+")[0]
    major, minor = (int(part) for part in version.split(".")[:2])
    version = version if (major, minor) <= (2, 14) else "2.14.0"
    return f"pip install torch=={version}+cu126 --index-url https://download.pytorch.org/whl/cu126"


def _error_on(device: str) -> str | None:
    """What goes wrong when a small matrix product runs on `device`, or None."""
    try:
        (torch.ones(8, 8, device=device) @ torch.ones(8, 8, device=device)).sum().item()
    except RuntimeError as error:  # "no kernel image is available for execution on the device" is one of these
        return str(error).splitlines()[0]
    return None


TRIM_THRESHOLD, MMAP_MAX = -1, -4  # mallopt's names for them, from malloc.h
KEPT = 10**9  # bytes that may stay in all


def keep_freed_memory() -> None:
    """Keep up to a GB of freed memory for what is allocated next; nothing happens with another C library."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(MMAP_MAX, 0)  # a piece that is mapped by itself goes back whole, and those above 32 MB always are
        mallopt(TRIM_THRESHOLD, KEPT)
