"""Freed memory that stays with the process."""

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from helpers.allocator import keep_freed_memory
{first}
def use():
    one, two, three, four = (torch.ones(5_000_000) for _ in range(4))  # 20 MB each
for _ in range(3):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def new_pages(first: str) -> int:
    """How many pages of 80 MB, used three times over, the system has to bring."""
    done = subprocess.run([sys.executable, "-c", FAULTS.format(first=first)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not (sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")), reason="glibc's alone")
def test_memory_that_was_freed_is_used_again():
    assert new_pages("keep_freed_memory()") < new_pages("pass") / 10
