import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from helpers.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
torch.zeros(16_000_000)  # 64 MB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.zeros(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is meant")
def test_freed_memory_is_taken_again_without_asking_the_system():
    pages = {
        word: int(subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, check=True).stdout)
        for word in ("keep", "give back")
    }
    assert pages["keep"] < 1000 < pages["give back"]
