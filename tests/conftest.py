"""Settings for every test: one thread per process, no network, no test that this machine cannot run."""

import logging
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

# before anything imports torch or a hub client; child processes inherit them
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, and skip what needs a cluster, a browser or a GPU where there is none."""
    # Workers take whole files in this order: a long one that came last would leave the others idle.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    absent: dict[str, str] = {}
    for marker, available, reason in (
        ("slurm", _has_slurm, "no Slurm here to start a cluster with: make test-slurm installs it"),
        ("browser", _has_browser, "no Chromium here"),
        ("gpu", _has_gpu, "no CUDA device here"),
    ):
        if any(item.get_closest_marker(marker) for item in items) and not available():
            absent[marker] = reason
    for item in items:
        for marker, reason in absent.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def _has_slurm() -> bool:
    if os.environ.get("MMPT_REQUIRE_SLURM"):
        return True  # where it is missing all the same, the tests fail
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    return all(shutil.which(name, path=path) for name in ("slurmctld", "slurmd", "munged", "sbatch"))


def _has_browser() -> bool:
    return any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """Put back what a training in this process does with the signals that end a test run."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield
    for number, handler in kept.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _fresh_logging() -> None:
    """Let no test see what an earlier one, or a library that it imported, made of the log levels."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.disable(logging.NOTSET)
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in ("mmpt", "mmpt_cli", "fairseq"):
            logger.disabled = False
            logger.propagate = True
            logger.setLevel(logging.NOTSET)
