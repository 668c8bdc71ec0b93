"""Freed memory is kept: counted in page faults, in processes of their own, as the setting is one of the process."""

import subprocess
import sys

import pytest

from mmpt.utils.allocator import keep_freed_memory

#: Takes and frees 64 MiB twenty times, as numpy does for an array; prints page faults beyond the first time.
FAULTS = """
import resource, sys
import numpy as np
if sys.argv[1] == "kept":
    from mmpt.utils.allocator import keep_freed_memory
    assert keep_freed_memory()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> int:
    return int(subprocess.run([sys.executable, "-c", FAULTS, way], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults of Linux")
def test_the_same_pages_are_used_again():
    if not keep_freed_memory():
        pytest.skip("no glibc, or settings of one's own")
    given_back, kept = faults("given back"), faults("kept")
    assert given_back >= 20 and kept < given_back / 5, (given_back, kept)


def test_settings_of_ones_own_stay(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    assert not keep_freed_memory()


def test_without_glibc_nothing_happens(monkeypatch):
    for name in ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("mmpt.utils.allocator.ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory()
