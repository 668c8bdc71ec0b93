"""A Slurm cluster for the tests of this folder, and a small project to run on it."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import SlurmCluster
from tiny_project import TinyProject

_spec = importlib.util.spec_from_file_location("tasks_conftest", Path(__file__).parents[1] / "tasks" / "conftest.py")
assert _spec is not None and _spec.loader is not None
_tasks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tasks)
tiny_corpus = _tasks.tiny_corpus


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    """Return a running cluster of two nodes; nothing of it is left afterwards."""
    with SlurmCluster() as running:
        yield running


@pytest.fixture
def project(cluster: SlurmCluster, tiny_corpus: Path, tmp_path: Path) -> Iterator[TinyProject]:
    """Return a project of VideoCLIP on the tiny corpus: pre-training, fine-tuning, and a test of each."""
    made = TinyProject(tmp_path, cluster, tiny_corpus)
    yield made
    made.end()
