"""The cluster of these tests itself: two nodes, and nothing left of them."""

import pytest
from cluster import NODES, SlurmCluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

JOB = "#!/bin/bash\nsrun bash -c 'echo $SLURM_PROCID $SLURMD_NODENAME $SLURM_NTASKS; sleep 600 & wait'\n"


def test_a_cluster_leaves_nothing_behind_whatever_happens() -> None:
    cluster = SlurmCluster()
    with pytest.raises(ZeroDivisionError), cluster:
        assert [node for node in cluster.nodes() if cluster.is_up(node)] == list(NODES)
        job = cluster.sbatch(JOB, "--nodes=2", "--ntasks-per-node=1")
        ranks = cluster.until(
            "both tasks", lambda: sorted(lines) if len(lines := cluster.log(job).split("\n")) > 2 else []
        )
        assert ranks == ["", f"0 {NODES[0]} 2", f"1 {NODES[1]} 2"]
        assert cluster.processes(of_jobs=True)
        raise ZeroDivisionError
    assert not cluster.processes()
    assert not cluster.folder.exists()
