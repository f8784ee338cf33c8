"""Memory that is freed stays with the process, where the C library is glibc.

Left to itself glibc gives large pieces back to the system at once, and for each new piece the system maps and clears
its pages again. Steps and captions make tensors of tens of megabytes and free them a moment later, over and over:
on a CPU a tenth of a training step and a sixth of a beam search went there (benchmarks/README.md).
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # mallopt's names for them, from malloc.h
KEPT = 10**9  # bytes that may stay in all


def keep_freed_memory() -> None:
    """Keep up to a GB of freed memory for what is allocated next; nothing happens with another C library."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(MMAP_MAX, 0)  # a piece that is mapped by itself goes back whole, and those above 32 MB always are
        mallopt(TRIM_THRESHOLD, KEPT)
