"""A job as it runs on a cluster, by submitit's local executor: two tasks, one world, the signal, queued again."""

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmpt.launch.layout import Machine
from mmpt.launch.project import Job, job_from_yaml
from mmpt.launch.slurm import SlurmRunner
from mmpt.launch.slurm_job import ClusterJob
from mmpt.launch.slurm_options import SlurmOptions
from mmpt.launch.state import JobState

pytestmark = pytest.mark.slow
submitit = pytest.importorskip("submitit")

SCRIPT = """
import pathlib, sys, time
tries = pathlib.Path("tries.txt")
with tries.open("a") as file:
    file.write("try\\n")
while "--wait" in sys.argv and tries.read_text().count("try") < 2:
    time.sleep(0.05)
sys.exit(5 if "--fail" in sys.argv else 0)
"""


class LocalExecutor(submitit.LocalExecutor):
    """Takes the parameters that are meant for Slurm, and keeps its job, whose process is not to be ended."""

    jobs: list[Any] = []

    def __init__(self, folder: Path, options: SlurmOptions) -> None:
        super().__init__(folder)

    def update_parameters(self, **parameters: Any) -> None:
        super().update_parameters(tasks_per_node=parameters["ntasks_per_node"], timeout_min=60)

    def submit(self, part: Any) -> Any:
        self.jobs.append(super().submit(part))
        return self.jobs[-1]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", str(root))
    (tmp_path / "x.py").write_text(SCRIPT)
    LocalExecutor.jobs.clear()
    return tmp_path


def submit(job: Job) -> Any:
    runner = SlurmRunner("slurm_single", machine=Machine(0), executor_of=LocalExecutor)
    assert runner.run(job)
    return LocalExecutor.jobs[-1]


def script(place: Path, *flags: str) -> Job:
    arguments = {"name": "one", **dict.fromkeys(flags, True)}
    (place / "job.yaml").write_text(yaml.safe_dump({"script": "x.py", "args": arguments, "run_dir": "runs/x"}))
    return job_from_yaml("job.yaml")


def state_of(job: Job) -> JobState:
    state = JobState.read(job.run_dir)
    assert state is not None
    return state


def until(ready: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_script_runs_and_its_state_tells(place: Path) -> None:
    job = script(place)
    assert submit(job).results() == ["completed"]
    state = state_of(job)
    assert (state.status, state.returncode, state.workers) == ("completed", 0, 1)
    assert state.slurm_job and state.started
    runner = SlurmRunner("slurm_single", machine=Machine(0), executor_of=LocalExecutor)
    assert not runner.run(job), "it is completed"


def test_a_failure_fails_the_job_so_that_none_follows(place: Path) -> None:
    job = script(place, "fail")
    with pytest.raises(submitit.core.utils.FailedJobError, match="failed with exit code 5"):
        submit(job).results()
    assert (state_of(job).status, state_of(job).returncode) == ("failed", 5)


def test_what_can_not_save_begins_again_when_it_must_go(place: Path) -> None:
    job = script(place, "wait")
    running = submit(job)
    until(lambda: Path("tries.txt").exists() and state_of(job).status == "running")
    # The local executor has one process over all tasks, which hands on SIGTERM alone; Slurm signals every task.
    _signal_tasks(running)
    assert running.results() == ["completed"]
    assert Path("tries.txt").read_text().count("try") == 2
    assert state_of(job).status == "completed"


def test_two_tasks_train_as_one_world_and_go_on_after_the_signal(
    pretraining_config: dict[str, Any], place: Path
) -> None:
    pytest.importorskip("fairseq")
    config = pretraining_config
    config["slurm"] = {"gpus_per_node": 0, "workers_per_node": 2}
    config["fairseq"]["optimization"] |= {"max_epoch": 0, "max_update": 60}
    config["fairseq"]["dataset"]["validate_interval"] = 1000
    config["fairseq"]["checkpoint"] = {"save_dir": "run", "no_epoch_checkpoints": True}
    (place / "job.yaml").write_text(yaml.safe_dump(config))
    job = job_from_yaml("job.yaml")
    running = submit(job)
    log = place / "run" / "log.txt"
    until(lambda: log.exists() and len(_updates(log)) >= 3)
    _signal_tasks(running)
    assert running.results()[0] == "completed"
    text = log.read_text()
    left_at = int(re.findall(r"saved at update (\d+)", text)[0])
    assert "asked to leave (SIGUSR2" in text
    assert 3 <= left_at < 60
    assert sorted(set(_updates(log))) == list(range(1, 61))
    assert _updates(log).count(left_at) == 1, "it went on from there"
    assert '"bsz": "24"' in text, "12 pairs of each worker"
    state = state_of(job)
    assert (state.status, state.workers) == ("completed", 2)
    assert not list((place / "run" / "slurm").glob("meeting_*"))


def test_a_worker_that_fails_fails_the_job_and_its_words_are_in_the_log(
    pretraining_config: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fairseq")
    (place / "failing.py").write_text(
        "from mmpt.losses.contrastive import MMContraLoss\nfrom mmpt.utils.distributed import world\n\n"
        "class Fails(MMContraLoss):\n"
        "    def __call__(self, *args, **kwargs):\n"
        "        if world()[0] == 1:\n            raise ValueError('the second worker is at fault')\n"
        "        return super().__call__(*args, **kwargs)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2]}:{place}")
    monkeypatch.syspath_prepend(place)
    config = pretraining_config
    config["slurm"] = {"gpus_per_node": 0, "workers_per_node": 2}
    config["loss"]["loss_cls"] = "failing:Fails"
    config["fairseq"]["checkpoint"] = {"save_dir": "run"}
    (place / "job.yaml").write_text(yaml.safe_dump(config))
    job = job_from_yaml("job.yaml")
    with pytest.raises(submitit.core.utils.FailedJobError):
        submit(job).results()
    state, log = state_of(job), (place / "run" / "log.txt").read_text()
    assert (state.status, state.returncode) == ("failed", 1)
    assert "error: worker 1 on" in log and "the second worker is at fault" in log


def test_what_goes_wrong_before_the_command_is_in_state_and_log(place: Path) -> None:
    job = script(place)
    (place / "job.yaml").write_text(yaml.safe_dump({"script": "-m a b", "args": {}, "run_dir": "runs/x"}))
    runner = SlurmRunner("slurm_single", machine=Machine(0), executor_of=LocalExecutor)
    part = ClusterJob(job.name, "job.yaml", "script", "runs/x", 0)
    (place / "runs/x/slurm").mkdir(parents=True)
    (place / "runs/x/slurm/submitted.yaml").write_text((place / "job.yaml").read_text())
    executor = runner.executor_of(place / "runs/x/slurm/%j", SlurmOptions())
    executor.update_parameters(ntasks_per_node=1)
    with pytest.raises(submitit.core.utils.FailedJobError):
        executor.submit(part).results()
    assert state_of(job).status == "failed"
    assert "error: job.yaml: script must be one file or '-m module'" in (place / "runs/x/log.txt").read_text()


def _updates(log: Path) -> list[int]:
    return [int(number) for number in re.findall(r'train_inner \| .*"num_updates": "(\d+)"', log.read_text())]


def _signal_tasks(running: Any) -> None:
    """Send SIGUSR2 to every task of a local job, as Slurm does."""
    children = Path(f"/proc/{running.job_id}/task/{running.job_id}/children").read_text().split()
    assert children
    for pid in children:
        os.kill(int(pid), signal.SIGUSR2)
