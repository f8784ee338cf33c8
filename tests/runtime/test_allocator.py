"""Freed memory stays with the process if glibc supports it."""

import ctypes
import subprocess
import sys

import pytest

from helpers.runtime import device as allocator

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallinfo2")
MAPPED = """
import ctypes
from helpers.runtime.device import keep_freed_memory
class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]
glibc = ctypes.CDLL(None)
glibc.mallinfo2.restype = Info
glibc.malloc.argtypes, glibc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
def mapped():
    before = glibc.mallinfo2().hblks
    assert glibc.malloc(200 * 2**20)
    return glibc.mallinfo2().hblks - before
alone = mapped()
keep_freed_memory()
print(alone, mapped())
"""


@pytest.mark.skipif(not GLIBC, reason="glibc's alone, from 2.33 on")
def test_large_pieces_are_no_longer_mapped_each_by_itself():
    done = subprocess.run([sys.executable, "-c", MAPPED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]


def test_where_there_is_no_mallopt_nothing_happens(monkeypatch):
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    monkeypatch.delattr(allocator.ctypes, "CDLL")
    allocator.keep_freed_memory()
