"""What the machine can do at most, measured in the run that it is compared with, and what it is."""

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["RATES", "bound", "describe", "measure_rates"]

#: Name -> unit of the machine's rates.
RATES = {"matmul": "FLOP/s, matrix product, float32", "copy": "bytes/s, memory copied", "read": "bytes/s, page cache"}
_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("torch", "numpy", "transformers", "av", "faiss-cpu", "fairseq-fixed")


def _best(call: Callable[[], Any], seconds: float, clock: Callable[[], float]) -> float:
    """Return the least seconds of a call, which is repeated for so long."""
    call()
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        begin = clock()
        call()
        best = min(best, clock() - begin)
    return best


def measure_rates(
    threads: int, seconds: float = 1.0, size: int = 2048, mebibytes: int = 256, clock: str = "wall"
) -> dict[str, float]:
    """Return the machine's :data:`RATES` on so many threads, the best of passes of ``seconds``, by the works' clock."""
    import torch

    from mmpt.modules.linear import linear

    seconds_of = time.process_time if clock == "processor" else time.perf_counter

    torch.set_num_threads(threads)
    left, right = torch.randn(size, size), torch.randn(size, size)
    product = torch.empty(size, size)
    # of the two libraries that torch has on a CPU, the faster one
    ways = [lambda: torch.mm(left, right, out=product), lambda: linear(left, right)]
    source = torch.ones(mebibytes * 2**20, dtype=torch.uint8)
    target = torch.empty_like(source)
    matmul = 2.0 * size**3 / min(_best(way, seconds, seconds_of) for way in ways)
    copied = source.numel() / _best(lambda: target.copy_(source), seconds, seconds_of)
    with tempfile.TemporaryFile() as file:
        file.write(source.numpy())
        buffer = memoryview(target.numpy())

        def read() -> None:
            file.seek(0)
            file.readinto(buffer)  # type: ignore[attr-defined]

        cached = source.numel() / _best(read, seconds, seconds_of)
    return {"matmul": matmul, "copy": copied, "read": cached}


def bound(rates: dict[str, float], kind: str, flop: float, moved: float) -> float | None:
    """Return the units per second that physics allows: the slower of computing and moving what a unit takes."""
    limits = []
    if flop:
        limits.append(rates["matmul"] / flop)
    if moved:
        limits.append(rates["read" if kind == "read" else "copy"] / moved)
    return min(limits) if limits else None


def describe() -> dict[str, Any]:
    """Return what a record of the history says of the code, its versions and the machine."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "versions": versions,
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "numpy_blas": np.show_config("dicts").get("Build Dependencies", {}).get("blas", {}).get("name"),
    }


def _git(*arguments: str) -> str | None:
    """Return what git prints; None outside a checkout."""
    done = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
    return model
