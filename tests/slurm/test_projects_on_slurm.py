"""Projects on a real Slurm cluster of two nodes: one world, preemption, a dead node, a time limit, a graph of jobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cluster import NODES, SlurmCluster
from launched import LaunchedProject
from tiny_project import FREE_UPDATES, UPDATES, ScriptProject, TinyVideoClip

from mmpt.utils.weight_files import load_state_dict_file

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1500)]

ONE_WORLD = [(NODES[0], 0, 2), (NODES[1], 1, 2)]  # node, rank, workers that it knows of


def assert_same_weights(run: Path, other: Path) -> None:
    ours, theirs = (load_state_dict_file(folder / "checkpoint_last.pt") for folder in (run, other))
    assert ours.keys() == theirs.keys()
    assert not [name for name, value in ours.items() if not torch.equal(value, theirs[name])]


def test_a_preempted_project_saves_is_queued_again_and_completes_its_graph(
    videoclip: TinyVideoClip, cluster: SlurmCluster, uninterrupted: Path
) -> None:
    project = videoclip
    project.hold()
    said = project.launch("--jobtype", "slurm_small")
    assert said.count("submitted as job") == len(project.jobs), said
    ids = {job: project.slurm_job(job) for job in project.jobs}
    for job, after in (("test_vtt_zs", "how2"), ("vtt_videoclip", "how2"), ("test_vtt_videoclip", "vtt_videoclip")):
        assert cluster.job(ids[job])["Dependency"] == f"afterok:{ids[after]}(unfulfilled)"
    project.until_held(FREE_UPDATES)
    assert project.statuses()["how2"] == "running"

    preemptor = cluster.sbatch("#!/bin/bash\nsleep 10\n", "--partition=high", "--nodes=2", "--exclusive")
    project.until_signalled(*NODES)
    project.release()
    project.until_state("how2", "PENDING")
    assert f"asked to leave (SIGUSR2, saved at update {FREE_UPDATES + 1})" in project.log("how2")
    assert {cluster.job(number)["JobState"] for number in ids.values()} == {"PENDING"}, "its successors wait on"
    for job in project.jobs:
        project.until_state(job, "COMPLETED")

    assert cluster.job(preemptor)["JobState"] == "COMPLETED"
    assert cluster.job(ids["how2"])["Restarts"] == "1"
    assert project.updates("how2") == list(range(1, UPDATES + 1)), "an update was lost, or done twice"
    assert [project.places(restart) for restart in (0, 1)] == [ONE_WORLD] * 2
    assert_same_weights(project.run_dir("how2"), uninterrupted)
    listing = project.listing()
    assert {view["status"] for view in listing.values()} == {"completed"}
    assert [set(listing[job]["metrics"]) for job in ("test_vtt_zs", "test_vtt_videoclip")] == [{"R1"}] * 2
    project.until_nothing_runs()
    print(project.account())


def test_a_training_goes_on_after_a_dead_node_and_after_its_time_limit(
    videoclip: TinyVideoClip, cluster: SlurmCluster, spare_node: str, uninterrupted: Path
) -> None:
    project = videoclip
    project.hold()
    project.launch("--dryrun")
    project.launch("--jobtype", "slurm_small", yaml="projects/tiny/how2.yaml")
    project.until_held(FREE_UPDATES)

    cluster.kill_node(NODES[1])
    project.release()  # the worker on the other node finds itself alone
    project.until_state("how2", "PENDING")
    assert project.statuses()["how2"] == "requeued"
    project.hold()
    cluster.start_node(spare_node)
    project.until_held(2 * FREE_UPDATES)
    assert project.updates("how2") == list(range(1, 2 * FREE_UPDATES + 1)), "it goes on from its last checkpoint"

    cluster.leave_minutes(project.slurm_job("how2"), 2)  # of which the last two are for saving: slurm.signal_seconds
    project.until_signalled(NODES[0], spare_node)
    project.release()
    project.until_state("how2", "PENDING")
    cluster.leave_minutes(project.slurm_job("how2"), 30)
    assert f"asked to leave (SIGUSR2, saved at update {2 * FREE_UPDATES + 1})" in project.log("how2")
    project.until_state("how2", "COMPLETED")

    assert cluster.job(project.slurm_job("how2"))["Restarts"] == "2"
    assert [project.places(restart) for restart in (0, 1, 2)] == [ONE_WORLD, *[[ONE_WORLD[0], (spare_node, 1, 2)]] * 2]
    assert project.updates("how2") == list(range(1, UPDATES + 1))
    assert_same_weights(project.run_dir("how2"), uninterrupted)
    project.until_nothing_runs()
    print(project.account())


@pytest.fixture
def ended(cluster: SlurmCluster) -> Iterator[list[LaunchedProject]]:
    """Return a list of projects that end with the test."""
    projects: list[LaunchedProject] = []
    yield projects
    for project in projects:
        project.end()


def test_a_failed_job_takes_its_successors_out_of_the_queue(
    cluster: SlurmCluster, tmp_path: Path, ended: list[LaunchedProject]
) -> None:
    project = ScriptProject(tmp_path, cluster, code_of_two=7)
    ended.append(project)
    project.launch("--jobtype", "slurm_single")
    project.until_state("two", "FAILED")
    reason = project.until_state("three", "CANCELLED")["Reason"]
    assert reason == "DependencyNeverSatisfied"
    listing = project.listing()
    assert {job: view["status"] for job, view in listing.items()} == {
        "one": "completed", "two": "failed", "three": "cancelled"
    }  # fmt: skip
    assert listing["two"]["note"] == "exit code 7"
    assert not project.log("three")


def test_cancelling_leaves_nothing_running(cluster: SlurmCluster, tmp_path: Path, ended: list[LaunchedProject]) -> None:
    project = ScriptProject(tmp_path, cluster, seconds={"one": 600})
    ended.append(project)
    project.launch("--jobtype", "slurm_single")
    project.until("the first job to run", lambda: "runs" in project.log("one"))
    project.launch("--cancel")
    for job in project.run_dirs:
        project.until_state(job, "CANCELLED")
    project.until_nothing_runs()
    assert set(project.statuses().values()) == {"cancelled"}


def test_gpus_that_are_not_there_end_the_job_with_a_named_error(
    videoclip: TinyVideoClip, cluster: SlurmCluster
) -> None:
    on_gpus = ("-o", "slurm.gpus_per_node=2", "-o", "slurm.workers_per_node=2")
    videoclip.launch("--jobtype", "slurm_small", "--nodes", "2", *on_gpus)
    asked = cluster.job(videoclip.slurm_job("how2"))
    assert (asked["NumNodes"], asked["NumTasks"], asked["TresPerNode"]) == ("2", "4", "gres:gpu:2")
    videoclip.until_state("how2", "FAILED")
    printed = "".join(path.read_text() for path in videoclip.run_dir("how2").rglob("*_log.out"))
    assert "2 GPU(s) per node were asked for; torch finds none" in printed
