"""What glibc is asked for, it takes."""

import ctypes
import subprocess
import sys

import pytest

from helpers import allocator

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
ASKED = """
import ctypes
from helpers import allocator
mallopt = ctypes.CDLL(None).mallopt
print(mallopt(allocator.MMAP_THRESHOLD, allocator.LARGEST), mallopt(allocator.TRIM_THRESHOLD, allocator.KEPT))
"""


@pytest.mark.skipif(not GLIBC, reason="glibc's alone")
def test_glibc_takes_what_it_is_asked_for():
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_where_there_is_no_mallopt_nothing_happens(monkeypatch):
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    monkeypatch.delattr(allocator.ctypes, "CDLL")
    allocator.keep_freed_memory()
