"""Time, memory and speed of works on a card, for the sections of gpu.py."""

import gc
import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from helpers.runtime.device import Choice, choose_accelerator

Row = dict[str, Any]  # of the table: measure, precision, ours, baseline, ratio, spread


@cache
def chosen() -> Choice:
    """Return the choice of device and precision, made once: a busy CPU might answer otherwise the next time."""
    return choose_accelerator()


def precisions() -> list[str]:
    """Return float32 and, if it is another, the best precision of the card."""
    return list(dict.fromkeys(["fp32", chosen().precision]))


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes until the card has finished it."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begun = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - begun


def peak_memory(device: torch.device, work: Callable[[], object]) -> dict[str, float]:
    """Do `work` and return the GB (10^9 bytes) of the card that it adds at its peak; nothing if it is on no card."""
    if device.type != "cuda":
        work()
        return {}
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    work()
    after = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    names = "GB allocated at the peak", "GB reserved at the peak"
    return {name: (new - old) / 1e9 for name, old, new in zip(names, before, after, strict=True)}


def speed(measure: str, arm: str, seconds: dict[str, list[float]], *, items: int, looped: int | None = None) -> Row:
    """Return the row of a speed. seconds: of our arm and of "baseline", by turn. looped: the baseline's own items."""
    ours, theirs = (
        [number / each for each in seconds[key]] for key, number in ((arm, items), ("baseline", looped or items))
    )
    ratios = [one / two for one, two in zip(ours, theirs, strict=True)]
    return {
        "measure": measure, "precision": arm, "ours": statistics.median(ours), "baseline": statistics.median(theirs),
        "ratio": statistics.median(ratios), "spread": [min(ratios), max(ratios)],
    }  # fmt: skip


def reached_by_products(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Return the operations per second that the card reaches in products of two square matrices, the best of five."""
    one, two = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times = [timed(device, lambda: one @ two) for _ in range(6)]
    return 2 * side**3 / min(times[1:])


def in_turns(device: torch.device, arms: dict[str, Callable[[], object]], *, turns: int) -> dict[str, list[float]]:
    """Return the seconds of each arm by turn, after a turn that warms up."""
    rounds = [{arm: timed(device, work) for arm, work in arms.items()} for _ in range(turns + 1)]
    return {arm: [each[arm] for each in rounds[1:]] for arm in arms}
