"""Several workers on this machine, through the launcher itself: one world, listing, cancelling, going on."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mmpt.launch.state import JobState
from tests.tasks.fairseq_runs import run as run_at_once

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
pytest.importorskip("fairseq")

#: It can take its time, so that a signal comes in the middle of a training, and says who it is.
SLOW_LOSS = """
import os, time, torch.distributed as dist
from mmpt.losses.contrastive import MMContraLoss

class Slow(MMContraLoss):
    def __call__(self, *args, **kwargs):
        time.sleep(float(os.environ.get('SECONDS_PER_LOSS', 0)))
        if dist.is_initialized():
            print(f"worker {dist.get_rank()} of {dist.get_world_size()}", flush=True)
        return super().__call__(*args, **kwargs)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "slow_loss.py").write_text(SLOW_LOSS)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path}")
    return tmp_path


def launch(folder: Path, *arguments: str, seconds_per_loss: float = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "locallaunch.py"), *arguments],
        cwd=folder,
        env={**os.environ, "SECONDS_PER_LOSS": str(seconds_per_loss)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def jobs(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mmpt_cli.jobs", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def until(ready: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def updates(log: Path) -> list[int]:
    return (
        [int(n) for n in re.findall(r'train_inner \| .*"num_updates": "(\d+)"', log.read_text())]
        if log.exists()
        else []
    )


def processes_in(folder: Path) -> Iterator[str]:
    """Yield the command lines of processes that work in a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(process / "cwd")) == folder:
                yield (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue


def test_two_workers_are_one_world_and_a_cancelled_training_goes_on(
    pretraining_config: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pretraining_config
    config["loss"]["loss_cls"] = "slow_loss:Slow"
    config["fairseq"]["dataset"]["num_workers"] = 1
    config["fairseq"]["optimization"] |= {"max_epoch": 0, "max_update": 24}
    config["fairseq"]["checkpoint"] = {"save_dir": "run", "no_epoch_checkpoints": True}
    config["fairseq"]["dataset"]["validate_interval"] = 1000
    (place / "job.yaml").write_text(yaml.safe_dump(config))
    run = place / "run"

    first = launch(place, "job.yaml", "--jobtype", "local_small", "--quiet", seconds_per_loss=2)
    until(lambda: first.poll() is not None or len(updates(run / "log.txt")) >= 3)
    assert first.poll() is None, first.communicate()[0]
    assert re.search(r"^job +running", jobs(place, "job.yaml"), flags=re.MULTILINE)
    assert sum("fairseq_worker.py" in line for line in processes_in(place)) >= 3, "torchrun and two workers"
    assert "job.yaml: cancelled" in jobs(place, "job.yaml", "--cancel")
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 130, said
    assert not list(processes_in(place))
    log = (run / "log.txt").read_text()
    assert {"worker 0 of 2", "worker 1 of 2"} <= set(log.splitlines())
    assert "asked to leave" in log and "SIGTERM" in log
    state = JobState.read(run)
    assert state is not None and state.status == "cancelled" and state.workers == 2
    left_at = int(re.findall(r"saved at update (\d+)", log)[-1])
    assert 3 <= left_at < 24
    saved = torch.load(run / "checkpoint_last.pt", weights_only=False)
    assert saved["optimizer_history"][-1]["num_updates"] == left_at

    second = launch(place, "job.yaml", "--jobtype", "local_small", "--quiet")
    said, _ = second.communicate(timeout=240)
    assert second.returncode == 0, said
    assert "resumes from run/checkpoint_last.pt" in said
    assert sorted(set(updates(run / "log.txt"))) == list(range(1, 25)), "no update was left out"
    assert updates(run / "log.txt").count(left_at) == 1, "and none was done twice"
    assert json.loads(jobs(place, "job.yaml", "--json"))[0]["status"] == "completed"

    monkeypatch.syspath_prepend(place)
    config["fairseq"]["checkpoint"]["save_dir"] = str(place / "whole")
    config["fairseq"]["distributed_training"] = {"ddp_backend": "legacy_ddp"}  # the launcher's on CPUs
    codes, said = run_at_once(config, place, ranks=2)
    assert codes == [0, 0], said
    one, other = (
        torch.load(place / name / "checkpoint_last.pt", weights_only=False)["model"] for name in ("run", "whole")
    )
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_workers_that_would_each_train_alone_are_refused(pretraining_config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(pretraining_config))
    fairseq_train = Path(sys.executable).parent / "fairseq-train"
    done = subprocess.run(
        [str(fairseq_train), str(tmp_path / "job.yaml"), "--user-dir", "mmpt", "--task", "mmtask", "--arch", "mmarch",
         "--criterion", "mmloss", "--cpu", "--batch-size", "1", "--optimizer", "adam", "--save-dir", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "WORLD_SIZE": "2", "RANK": "0"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "WORLD_SIZE is 2, but this worker is in a world of 1" in done.stderr
