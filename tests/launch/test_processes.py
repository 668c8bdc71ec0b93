"""Commands as subprocesses: exit codes, output, and that nothing is left behind."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from mmpt.launch import processes
from mmpt.launch.processes import Processes, job_environment


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return path.read_text()


def gone(pid: int) -> bool:
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_output_goes_to_log_and_console_and_the_exit_code_is_the_commands(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.txt"
    log.write_text("before\n")
    pids: list[int] = []
    code = Processes().run(python("print('said'); raise SystemExit(3)"), job_environment(), log, started=pids.append)
    assert (code, len(pids)) == (3, 1)
    assert log.read_text() == "before\nsaid\n"
    assert capfd.readouterr().out == "said\n"
    assert Processes().run(python("print('quiet')"), job_environment(), log, stream=False) == 0
    assert capfd.readouterr().out == ""
    killed = python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert Processes().run(killed, job_environment()) == -signal.SIGKILL


def test_what_a_command_leaves_running_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        f"open({str(note)!r}, 'w').write(f'{{p.pid}}\\n')"
    )
    assert Processes().run(python(code), job_environment()) == 0  # and its output pipe is not waited for
    assert gone(int(note.read_text()))


def test_stopping_asks_first_and_kills_what_does_not_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SECONDS_TO_STOP", 0.5)
    for name, handler, expected in (("polite", "lambda *_: sys.exit(9)", 9), ("deaf", "signal.SIG_IGN", -9)):
        ready = tmp_path / name
        code = (
            f"import signal, sys, time; signal.signal(signal.SIGTERM, {handler})\n"
            f"open({str(ready)!r}, 'w').write('up\\n'); time.sleep(300)"
        )
        running, codes = Processes(), []
        thread = threading.Thread(
            target=lambda p=running, c=code, out=codes: out.append(p.run(python(c), job_environment()))
        )
        thread.start()
        wait_for(ready)
        running.stop()
        thread.join(timeout=30)
        assert codes == [expected], name
        assert running.stopped


def test_cores_are_shared_out_among_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    assert "OMP_NUM_THREADS" not in job_environment()
    assert job_environment(2)["OMP_NUM_THREADS"] == str(max(1, cores // 2))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert job_environment(2)["OMP_NUM_THREADS"] == "7"
