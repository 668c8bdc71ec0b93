"""Listing and cancelling the jobs of this machine."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmpt.launch.state import JobState
from mmpt_cli.jobs import main
from mmpt_cli.localjob import LocalJob

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "projects" / "base").mkdir(parents=True)
    (tmp_path / "x.py").write_text(
        "import sys, time\nprint('begun', flush=True)\ntime.sleep(300 * ('--wait' in sys.argv))\n"
    )
    for name, flags in (("one", "{name: one}"), ("two", "{name: two, wait: true}"), ("three", "{name: three}")):
        Path(f"projects/base/{name}.yaml").write_text(f"script: x.py\nargs: {flags}\n")
    Path("projects/mine.yaml").write_text(
        "project_dir: mine\nbase_dir: base\ntask_group: {a: {task_list: [one.yaml, two.yaml, three.yaml]}}\n"
    )
    return "projects/mine.yaml"


def launched(project: str) -> subprocess.Popen[str]:
    """Start the launcher and wait until its second job runs."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "locallaunch.py"), project],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = Path("runs/mine/two/log.txt")
    deadline = time.monotonic() + 60
    while not (log.exists() and "begun" in log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


def ended(pid: int) -> bool:
    """Tell whether a process is gone, or waits only for someone to take note of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def statuses(project: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main([project, "--json"]) == 0
    return [job["status"] for job in json.loads(capsys.readouterr().out)]


def test_cancelling_ends_the_job_and_its_launcher(project: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert statuses(project, capsys) == ["not run"] * 3
    process = launched(project)
    assert statuses(project, capsys) == ["completed", "running", "not run"]
    assert main([project, "--only", "two", "--tail", "5"]) == 0
    out = capsys.readouterr().out
    assert "begun" in out and "one" not in out.split("\n")[1]
    assert main([project, "--cancel"]) == 0
    assert capsys.readouterr().out == ("two.yaml: cancelled, and with it its launcher, which begins no other job\n")
    process.communicate(timeout=30)
    assert process.returncode == 130, "and no other job was begun"
    assert statuses(project, capsys) == ["completed", "cancelled", "not run"]
    assert main([project, "--cancel"]) == 0
    assert capsys.readouterr().out == "nothing runs or waits\n"


def test_a_launcher_that_was_killed_takes_its_job_along_and_that_is_seen(
    project: str, capsys: pytest.CaptureFixture[str]
) -> None:
    process = launched(project)
    state = JobState.read(Path("runs/mine/two"))
    assert state is not None and state.launcher == process.pid
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while statuses(project, capsys)[1] == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert statuses(project, capsys) == ["completed", "interrupted", "not run"]


def test_a_job_whose_launcher_hangs_is_killed_all_the_same(
    project: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmpt.launch.jobs._SECONDS_TO_CANCEL", 1.0)
    process = launched(project)
    process.send_signal(signal.SIGSTOP)
    assert main([project, "--cancel"]) == 0
    state = JobState.read(Path("runs/mine/two"))
    assert state is not None
    assert ended(state.pid)
    assert process.wait(timeout=20) == -signal.SIGKILL
    assert statuses(project, capsys)[1] != "running"


def test_wrong_names_and_job_types_are_errors(project: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([project, "--only", "tow"]) == 2
    assert "has no job 'tow'. Did you mean 'two'?" in capsys.readouterr().err
    from mmpt.utils.errors import ConfigError

    with pytest.raises(ConfigError, match="slurm_script is a job of a cluster"):
        LocalJob("projects/base/one.yaml", "slurm_big").submit()
