"""Freed memory is kept: counted in page faults, in processes of their own, as the setting is one of the process."""

import os
import platform
import subprocess
import sys

import pytest

from mmpt.utils import allocator
from mmpt.utils.allocator import keep_freed_memory

#: Takes and frees 64 MiB, and much more in blocks one after the other; prints page faults beyond the first time.
FAULTS = """
import resource, sys
import numpy as np
if sys.argv[1] == "kept":
    from mmpt.utils.allocator import keep_freed_memory
    assert keep_freed_memory()

def work():
    np.ones(2**23)
    blocks = [np.ones(2**20) for _ in range(40)]
    while blocks:
        blocks.pop()

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
SETTINGS = ("GLIBC_TUNABLES", *allocator._OWN_SETTINGS)


def faults(way: str) -> int:
    environment = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    command = [sys.executable, "-c", FAULTS, way]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_the_same_pages_are_used_again():
    given_back, kept = faults("given back"), faults("kept")
    assert given_back >= 20 and kept < given_back / 5, (given_back, kept)


class Library:
    """glibc's mallopt as old versions have it: no blocks beyond 32 MiB."""

    def __init__(self):
        self.given = []

    def mallopt(self, what, value):
        self.given.append((what, value))
        return int(what == -1 or value <= 2**25)


@pytest.fixture
def library(monkeypatch):
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    library = Library()
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: library)
    return library


def test_an_older_glibc_keeps_blocks_of_32_mib(library):
    assert keep_freed_memory()
    assert library.given == [(-3, 2**30), (-3, 2**25), (-1, -1)]


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_ones_own_stay(library, monkeypatch, name):
    monkeypatch.setenv(name, "glibc.malloc.trim_threshold=100000")
    assert not keep_freed_memory() and not library.given


def test_tunables_of_other_things_do_not_matter(library, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0")
    assert keep_freed_memory()


def test_without_glibc_nothing_happens(library, monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()
