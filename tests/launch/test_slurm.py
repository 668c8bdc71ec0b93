"""Submission to Slurm, without one: batch scripts, dependencies, what counts; its programs are fakes."""

import dataclasses
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from mmpt.launch.jobs import look_at
from mmpt.launch.layout import Machine
from mmpt.launch.project import expand_project, jobs_of
from mmpt.launch.slurm import SlurmRunner
from mmpt.launch.slurm_job import ClusterJob
from mmpt.launch.slurm_options import SlurmOptions, gpus_of, minutes_of, slurm_layout, slurm_options
from mmpt.launch.slurm_queue import SlurmError
from mmpt.launch.state import JobState
from mmpt.utils.errors import ConfigError
from mmpt.utils.schema import CORE_KEYS
from mmpt_cli.jobs import main as jobs_main
from mmpt_cli.launch import main

TRAIN = """
dataset: {train_path: t.lst}
fairseq:
  dataset: {num_workers: 4}
  checkpoint: {save_dir: runs/base/%s%s}
"""
TEST = """
task_type: local_predict
dataset: {split: test, test_path: t.csv}
fairseq: {common_eval: {path: runs/base/tune/checkpoint_last.pt}}
eval: {save_path: runs/base/test}
"""
PROJECT = """
project_dir: mine
base_dir: base
slurm:
  partition: gpu
  account: lab
  time: "2-12:30:00"
  mem_gb: 200
  constraint: h100
  setup: [module load cuda, source "env.sh"]
  options: {reservation: week 3}
task_group:
  data: {task_list: [make.yaml]}
  pretrain: {task_list: [pre.yaml], slurm: {nodes: 4}}
  rest: {task_list: [tune.yaml, test.yaml]}
"""


class FakeExecutor:
    """Keeps what it is given; numbers jobs from 100."""

    def __init__(self, folder: Path, options: SlurmOptions) -> None:
        self.folder = folder
        self.parameters: dict[str, Any] = {}

    def update_parameters(self, **parameters: Any) -> None:
        self.parameters = parameters

    def submit(self, part: ClusterJob) -> Any:
        SUBMITTED.append((part, self.parameters))
        return type("Job", (), {"job_id": 99 + len(SUBMITTED)})


SUBMITTED: list[tuple[ClusterJob, dict[str, Any]]] = []


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    SUBMITTED.clear()
    base = tmp_path / "projects" / "base"
    base.mkdir(parents=True)
    (base / "make.yaml").write_text("script: x.py\nargs: {name: one}\nforce_flag: --force\n")
    (base / "pre.yaml").write_text(TRAIN % ("pre", ""))
    (base / "tune.yaml").write_text(TRAIN % ("tune", ", restore_file: runs/base/pre/checkpoint_last.pt"))
    (base / "test.yaml").write_text(TEST)
    path = tmp_path / "projects" / "mine.yaml"
    path.write_text(PROJECT)
    return Path("projects/mine.yaml")


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Put programs of Slurm on the PATH, as shell scripts."""
    for name, text in programs.items():
        file = folder / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(file.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")


def submit(path: Path, **settings: Any) -> SlurmRunner:
    from mmpt.launch.graph import stages

    runner = SlurmRunner("slurm_big", machine=Machine(0), executor_of=FakeExecutor, **settings)
    runner.run_stages(stages(expand_project(path)))
    return runner


def test_a_dry_run_shows_the_batch_script_and_the_command_of_a_worker(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    before = set(Path("runs").rglob("*"))
    assert main([str(project), "--jobtype", "slurm_big", "--dryrun", "-o", "slurm.qos=high"]) == 0
    out = capsys.readouterr().out
    assert set(Path("runs").rglob("*")) == before
    script = out[out.index("pre.yaml --user-dir") if "pre.yaml --user-dir" in out else out.index("runs/mine/pre") :]
    script = script[: script.index("stage 3/")]
    lines = [line.strip(" |") for line in script.splitlines()]
    for flag in (
        "--partition=gpu", "--account=lab", "--time=3630", "--mem=204800M", "--constraint=h100", "--nodes=4",
        "--gpus-per-node=8", "--ntasks-per-node=8", "--cpus-per-task=5", "--qos=high", "--reservation='week 3'",
        "--requeue", "--signal=USR2@120", "--dependency=afterok:make.yaml", "--kill-on-invalid-dep=yes",
        "--open-mode=append", "--job-name=pre",
    ):  # fmt: skip
        assert f"#SBATCH {flag}" in lines, flag
    assert lines.index("module load cuda") < lines.index('source "env.sh"') < lines.index("# command")
    (call,) = (line for line in lines if "submitit.core._submit" in line)
    assert f"{sys.executable} -u -m submitit.core._submit {Path.cwd()}/runs/mine/pre/slurm/%j" in call
    assert "--kill-on-bad-exit=1" in call and "--cpus-per-task=5" in call
    assert any("scontrol requeue" in line for line in lines[lines.index(call) :])
    assert "mmpt_cli/fairseq_worker.py runs/mine/pre/config.yaml" in out
    assert "32 worker(s) on 4 node(s)" in out


def test_jobs_are_submitted_in_the_order_of_the_graph(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner = submit(project)
    assert runner.submitted == {"make.yaml": "100", "pre.yaml": "101", "tune.yaml": "102", "test.yaml": "103"}
    after = [parameters["additional_parameters"].get("dependency") for _, parameters in SUBMITTED]
    assert after == [None, "afterok:100", "afterok:100:101", "afterok:100:102"]
    layout = [(p["nodes"], p["ntasks_per_node"], p.get("gpus_per_node")) for _, p in SUBMITTED]
    assert layout == [(1, 1, None), (4, 8, 8), (1, 8, 8), (1, 1, 1)], "a script has no GPU, a test one"
    state = JobState.read(Path("runs/mine/pre"))
    assert state is not None
    assert (state.status, state.slurm_job, state.workers, state.after) == (
        "pending",
        "101",
        32,
        {"make.yaml": "submitted"},
    )
    assert (Path("runs/mine/pre") / "slurm" / "submitted.yaml").exists()
    assert not (Path("runs/mine/pre") / "config.yaml").exists(), "it has not begun"
    part = SUBMITTED[2][0]
    assert part.after == {"make.yaml": "runs/mine/make", "pre.yaml": "runs/mine/pre"}


def test_what_is_queued_or_completed_is_not_submitted_again(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(project)
    fake(
        tmp_path,
        monkeypatch,
        squeue="printf '100|COMPLETED|None|n1\\n101|RUNNING|None|n[1-4]\\n102|PENDING|Dependency|\\n'",
    )
    state = JobState.read(Path("runs/mine/make"))
    assert state is not None
    state.status, state.started = "completed", "2026-01-01T00:00:00"
    state.write(Path("runs/mine/make"))
    SUBMITTED.clear()
    runner = submit(project)
    out = capsys.readouterr().out
    assert "pre.yaml: is job 101 already (RUNNING)" in out
    assert "make.yaml: completed before" in out
    assert [part.name for part, _ in SUBMITTED] == ["test.yaml"], "Slurm knows it no longer"
    assert SUBMITTED[0][1]["additional_parameters"]["dependency"] == "afterok:102"
    assert runner.waiting["pre.yaml"] == "101" and "pre.yaml" not in runner.submitted
    fake(tmp_path, monkeypatch, scancel=f"echo $* >> {tmp_path}/cancelled")
    runner.stop()
    assert (tmp_path / "cancelled").read_text().split() == ["100"], "what it submitted itself"


def test_force_makes_a_script_begin_anew_too(project: Path) -> None:
    submit(project, force=True)
    assert SUBMITTED[0][0].force_flag == "--force"


def test_states_of_the_queue_and_of_the_run_folders_are_put_together(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(project)
    fake(
        tmp_path, monkeypatch,
        squeue="printf '100|RUNNING|None|n1\\n101|PENDING|Priority|\\n102|CANCELLED|DependencyNeverSatisfied|\\n'",
        scancel=f"echo $* >> {tmp_path}/cancelled",
    )  # fmt: skip
    views = {view.job.name: view for view in look_at(jobs_of(project))}
    assert [(views[name].status, views[name].note) for name in ("make.yaml", "pre.yaml")] == [
        ("running", "on n1"), ("pending", "Priority"),
    ]  # fmt: skip
    assert views["tune.yaml"].status == "cancelled" and "CANCELLED" in views["tune.yaml"].note
    assert views["test.yaml"].status == "interrupted" and "no longer" in views["test.yaml"].note
    failed = JobState.read(Path("runs/mine/pre"))
    assert failed is not None
    failed.status, failed.started, failed.restarts = "failed", "2026-01-01T00:00:00", 1
    failed.write(Path("runs/mine/pre"))
    assert look_at(jobs_of(project, only=["pre"]))[0].status == "requeued", "its node failed, not the job"
    assert jobs_main([str(project)]) == 0
    assert "requeued" in capsys.readouterr().out
    assert main([str(project), "--cancel"]) == 0
    assert (tmp_path / "cancelled").read_text().split() == ["100", "101"]
    state = JobState.read(Path("runs/mine/pre"))
    assert state is not None and state.status == "cancelled"


def test_without_slurm_it_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert main([str(project), "--jobtype", "slurm_single"]) == 2
    assert "belongs to no Slurm cluster" in capsys.readouterr().err
    submit(project)
    view = look_at(jobs_of(project, only=["make"]))[0]
    assert view.status == "pending" and "squeue is not on the PATH" in view.note
    assert main([str(project), "--cancel"]) == 2
    assert "scancel is not on the PATH" in capsys.readouterr().err


def test_slurms_own_refusal_is_passed_on(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    from mmpt.launch.slurm import _executor

    fake(
        tmp_path,
        monkeypatch,
        srun="exit 0",
        sbatch="echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1",
    )
    runner = SlurmRunner("slurm_big", machine=Machine(0), executor_of=_executor)
    job = jobs_of(project, only=["make"])[0]
    with pytest.raises(SlurmError, match=r"make\.yaml: .*invalid partition specified: gpu"):
        runner.run(job)
    assert JobState.read(job.run_dir) is None, "it was not submitted"


def test_a_training_that_slurm_refused_to_extend_is_extended_the_next_time(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    from mmpt.launch.preparation import begin
    from mmpt.launch.slurm import _executor

    job = jobs_of(project, ["fairseq.optimization.max_epoch=1"], only=["pre"])[0]
    done = JobState("running")
    begin(job, done)
    done.status, done.returncode = "completed", 0
    done.write(job.run_dir)
    (job.run_dir / "checkpoint_last.pt").touch()
    fake(tmp_path, monkeypatch, srun="exit 0", sbatch="echo 'invalid partition' >&2; exit 1")
    longer = jobs_of(project, ["fairseq.optimization.max_epoch=5"], only=["pre"])[0]
    with pytest.raises(SlurmError):
        SlurmRunner("slurm_big", machine=Machine(0), executor_of=_executor).run(longer)
    assert SlurmRunner("slurm_big", machine=Machine(0), executor_of=FakeExecutor).run(longer)
    assert (job.run_dir / "checkpoint_last.pt").exists()


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("01:30:00", 90),
        ("10:30", 11),
        ("1-00", 1440),
        ("1-06:30", 1830),
        ("2-12:30:00", 3630),
        ("00:00:01", 1),
    ],
)
def test_time_limits_are_read_as_slurm_reads_them(text: str, minutes: int) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("wrong", [86400, "1 day", "", "0", "1:2:3:4", None])
def test_other_time_limits_are_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"slurm\.time: .*(in quotes|no time at all)"):
        minutes_of(wrong)


def test_an_unquoted_time_limit_is_an_error_that_names_the_file(project: Path) -> None:
    project.write_text(PROJECT.replace('"2-12:30:00"', "24:00:00"))
    with pytest.raises(ConfigError, match=r"pre\.yaml: slurm\.time: 86400 .*in quotes"):
        slurm_options(jobs_of(project, only=["pre"])[0])


def test_a_time_limit_that_leaves_no_time_is_refused(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"slurm\.time: '2' is no longer than slurm\.signal_seconds \(120\)"):
        slurm_options(jobs_of(project, ["slurm.time='2'"], only=["pre"])[0])


def test_the_sections_keys_are_those_of_the_schema(project: Path) -> None:
    assert {field.name for field in dataclasses.fields(SlurmOptions)} == set(CORE_KEYS["slurm"])
    project.write_text(PROJECT.replace("partition: gpu", "partion: gpu"))
    with pytest.raises(ConfigError, match=r"slurm\.partion.*'partition'"):
        slurm_options(jobs_of(project)[0])


def test_workers_follow_the_gpus_the_section_and_the_command_line(project: Path) -> None:
    job = jobs_of(project, only=["pre"])[0]

    def workers(overrides: list[str], job_type: str = "slurm_small", name: str = "pre", **typed: int) -> int:
        changed = jobs_of(project, overrides, only=[name])[0]
        return slurm_layout(changed, slurm_options(changed, **typed), job_type).workers

    assert slurm_layout(job, slurm_options(job), "slurm_small").workers == 8, "four nodes"
    assert workers([], nodes=2, gpus_per_node=4) == 8
    on_cores = "slurm.gpus_per_node=0"
    assert workers([on_cores]) == 8 and workers([on_cores], "slurm_big") == 32, "the job type's size on each node"
    assert workers([on_cores, "slurm.workers_per_node=3"]) == 12
    assert workers([on_cores], gpus_per_node=5) == 20, "of its cores, as it says 0 GPUs"
    assert workers([], "slurm_big", nodes=1, gpus_per_node=0) == 8
    with pytest.raises(ConfigError, match=r"workers_per_node: 3 workers for 2 GPU.*each worker has one"):
        workers(["slurm.gpus_per_node=2", "slurm.workers_per_node=3"])
    tests = [workers([], "slurm_big", "test", **typed) for typed in ({}, {"nodes": 4}, {"gpus_per_node": 4})]
    assert tests == [1, 1, 4], "a test has one worker unless it is asked for more"
    assert gpus_of(jobs_of(project, only=["make"])[0], slurm_options(jobs_of(project, only=["make"])[0])) == 0


def test_containers_and_switches_become_options(project: Path) -> None:
    in_image = ["slurm.container_image=img.sqsh", "slurm.container_mounts=/data:/data"]
    with pytest.raises(ConfigError, match=r"container_image: slurm\.python must say"):
        slurm_options(jobs_of(project, in_image, only=["pre"])[0])
    switches = ["slurm.options.exclusive=true", "slurm.options.requeue=false"]
    job = jobs_of(project, [*in_image, "slurm.python=python3", *switches], only=["pre"])[0]
    script = SlurmRunner("slurm_big", machine=Machine(0)).script(job)
    assert "--container-image=img.sqsh" in script and "--container-mounts=/data:/data" in script
    assert f"--container-workdir={Path.cwd()}" in script and " python3 -u -m submitit" in script
    assert "#SBATCH --exclusive\n" in script and "--requeue" not in script.split("# command")[0]


def test_several_nodes_need_a_cluster(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(project), "--nodes", "2", "--dryrun"]) == 2
    assert "--nodes 2: several nodes need a Slurm job type" in capsys.readouterr().err
