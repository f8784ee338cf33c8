"""Memory that is freed stays with the process, where the C library is glibc.

Left to itself glibc gives large pieces back to the system at once, and for each new piece the system maps and clears
its pages again. Steps and captions make tensors of tens of megabytes and free them a moment later, over and over:
on a CPU a twentieth of a training step and a sixth of a beam search went there (benchmarks/README.md).
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's names for them, from malloc.h
LARGEST = 32 * 2**20  # bytes of a piece that may stay: as many as glibc itself would allow in time
KEPT = 10**9  # bytes that may stay in all


def keep_freed_memory() -> None:
    """Keep up to a GB of freed memory for what is allocated next; nothing happens with another C library."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, KEPT)
