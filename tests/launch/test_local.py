"""Running jobs: order, exit codes, logs, skipping, redoing; dry runs write nothing but YAMLs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmpt.launch.state import JobState
from mmpt_cli.launch import main
from mmpt_cli.localjob import LocalJob

SCRIPT = """
import pathlib, sys, time
name, out = sys.argv[2], pathlib.Path("trace.txt")
with out.open("a") as file:
    file.write(name + "\\n")
print(f"hello from {name}", flush=True)
if "--sleep" in sys.argv:
    time.sleep(60)
if "--fail" in sys.argv:
    print("something went wrong", file=sys.stderr)
    sys.exit(7)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "projects" / "base").mkdir(parents=True)
    (tmp_path / "x.py").write_text(SCRIPT)
    for name in ("one", "two", "three"):
        Path(f"projects/base/{name}.yaml").write_text(f"script: x.py\nargs: {{name: {name}}}\n")
    path = Path("projects/mine.yaml")
    path.write_text(
        "project_dir: mine\nbase_dir: base\ntask_group:\n  a: {task_list: [one.yaml, two.yaml]}\n"
        "  b: {task_list: [three.yaml]}\n"
    )
    return path


def trace() -> list[str]:
    return Path("trace.txt").read_text().split() if Path("trace.txt").exists() else []


def test_a_dry_run_writes_only_the_job_files(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(Path().rglob("*"))
    assert main([str(project), "--dryrun"]) == 0
    new = {str(path) for path in set(Path().rglob("*")) - before}
    assert new == {"projects/mine", *(f"projects/mine/{name}.yaml" for name in ("one", "two", "three"))}
    out = capsys.readouterr().out
    assert "stage 3/3" in out
    assert "x.py --name two" in out


def test_all_jobs_run_once_and_a_second_call_skips_them(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(project)]) == 0
    assert trace() == ["one", "two", "three"]
    assert "hello from two" in Path("runs/mine/two/log.txt").read_text()
    assert main([str(project)]) == 0
    assert trace() == ["one", "two", "three"]
    assert capsys.readouterr().out.count("completed before, skipped") == 3
    assert main([str(project), "--force"]) == 0
    assert trace() == ["one", "two", "three"] * 2


def test_a_changed_setting_redoes_the_job_and_what_follows(project: Path) -> None:
    main([str(project)])
    Path("projects/base/two.yaml").write_text("script: x.py\nargs: {name: two, loud: true}\n")
    assert main([str(project)]) == 0
    assert trace() == ["one", "two", "three", "two", "three"]


def test_the_first_failure_stops_the_project_with_its_exit_code(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("projects/base/two.yaml").write_text("script: x.py\nargs: {name: two, fail: true}\n")
    assert main([str(project)]) == 7
    assert trace() == ["one", "two"]
    error = capsys.readouterr().err
    assert "two.yaml failed with exit code 7" in error
    assert "something went wrong" in error
    assert "runs/mine/two/log.txt" in error
    state = JobState.read(Path("runs/mine/two"))
    assert state is not None and (state.status, state.returncode) == ("failed", 7)
    Path("projects/base/two.yaml").write_text("script: x.py\nargs: {name: two}\n")
    assert main([str(project)]) == 0
    assert trace() == ["one", "two", "two", "three"], "completed jobs are not repeated"


def test_interrupting_leaves_no_child_behind(project: Path) -> None:
    Path("projects/base/one.yaml").write_text("script: x.py\nargs: {name: one, sleep: true}\n")
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, str(root / "locallaunch.py"), str(project)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Under a shell's background job, as in some CI systems, interrupts are ignored from the start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not trace() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    found = subprocess.run(["pgrep", "-f", f"{sys.executable} x.py --name one"], capture_output=True, check=False)
    assert found.stdout == b""
    state = JobState.read(Path("runs/mine/one"))
    assert state is not None and state.status != "completed", "the next call runs it again"


def test_a_missing_checkpoint_is_an_error_before_anything_starts(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("projects/lone_test.yaml")
    path.write_text(
        "task_type: local_predict\ndataset: {split: test, test_path: t.csv}\n"
        "fairseq: {common_eval: {path: runs/none/checkpoint_best.pt}}\neval: {save_path: runs/lone}\n"
    )
    assert main([str(path)]) == 2
    assert "runs/none/checkpoint_best.pt" in capsys.readouterr().err
    assert not Path("runs/lone").exists()


def test_user_errors_are_one_line_and_exit_2(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["projects/none.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "projects/none.yaml" in error and "Traceback" not in error


def test_local_job_keeps_its_public_face(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LocalJob("projects/base/one.yaml", dryrun=True).submit()
    assert trace() == []
    status = LocalJob("projects/base/one.yaml").submit()
    assert trace() == ["one"]
    assert status.done() and not status.running() and status.status == "completed"
