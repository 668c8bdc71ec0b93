"""Reading a store again and again takes no more memory: neither of the process, nor of a worker."""

import pytest

from scripts.benchmarks import bench_memory


@pytest.mark.parametrize("work", bench_memory.WORKS, ids=lambda work: work.name)
def test_memory_does_not_grow_with_reads(work, tmp_path):
    work.prepare(tmp_path, videos=2000)
    run = work.ours(tmp_path, videos=2000, reads=40_000, workers=1)
    assert run.call() > 0
    # 36,000 reads of 100 bytes and more: a leak of one small object each would be 2 MiB
    assert run.figures()["growth over the last nine tenths, MiB"] < 1.5
