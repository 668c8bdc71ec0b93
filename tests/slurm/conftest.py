"""A Slurm cluster for the tests of this folder, and a small project to run on it."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import NODES, SPARE_NODE, SlurmCluster
from tiny_project import TinyVideoClip

_path = Path(__file__).parents[1] / "tasks" / "conftest.py"
_spec = importlib.util.spec_from_file_location("conftest_of_tasks", _path)
assert _spec is not None and _spec.loader is not None
_of_tasks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_of_tasks)
tiny_corpus = _of_tasks.tiny_corpus


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    """Return a running cluster of two nodes; nothing of it is left afterwards."""
    with SlurmCluster() as running:
        yield running


@pytest.fixture
def spare_node(cluster: SlurmCluster) -> Iterator[str]:
    """Return a node that the test may start to replace one that it kills; afterwards all is as before."""
    yield SPARE_NODE
    cluster.kill_node(SPARE_NODE)
    for node in NODES:
        if not cluster.is_up(node):
            cluster.start_node(node)


@pytest.fixture
def videoclip(cluster: SlurmCluster, tiny_corpus: Path, tmp_path: Path) -> Iterator[TinyVideoClip]:
    """Return the project, not launched yet."""
    project = TinyVideoClip(tmp_path, cluster, tiny_corpus)
    yield project
    project.end()


@pytest.fixture(scope="session")
def uninterrupted(cluster: SlurmCluster, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder of the same pre-training by two workers of this host, with nothing coming in between."""
    project = TinyVideoClip(tmp_path_factory.mktemp("uninterrupted"), cluster, tiny_corpus)
    project.launch("--dryrun")
    project.launch("--jobtype", "local_small", yaml="projects/tiny/how2.yaml")
    return project.run_dir("how2")
