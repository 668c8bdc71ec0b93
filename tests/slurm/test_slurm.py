"""A project on a real Slurm cluster of two nodes: one world, preemption, a node that fails, the graph of its jobs."""

import pytest
from cluster import NODES, SlurmCluster
from tiny_project import JOBS, PREEMPTOR, TinyProject

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
pytest.importorskip("fairseq")


def test_a_preempted_project_saves_is_requeued_and_completes_its_graph(
    project: TinyProject, cluster: SlurmCluster
) -> None:
    project.hold()
    said = project.launch("--jobtype", "slurm_small")
    assert said.count("submitted as job") == len(JOBS), said
    training = project.slurm_job("how2")
    project.until("the first updates", lambda: len(project.updates()) >= 3)

    by_priority = ("--partition=high", "--nodes=2", "--exclusive")
    preemptor = cluster.sbatch(PREEMPTOR, *by_priority)
    cluster.wait(training, "PENDING")
    project.release()
    cluster.wait(preemptor, "COMPLETED")
    project.until_completed(*JOBS)

    assert cluster.job(training)["Restarts"] == "1"
    for restart in (0, 1):
        places = {(seen["node"], seen["rank"], seen["workers"]) for seen in project.trace() if seen["restart"] == restart}
        assert places == {(NODES[0], 0, 2), (NODES[1], 1, 2)}
    print(project.logs()); print(said); print(project.listing())
