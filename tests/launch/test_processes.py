"""Commands as subprocesses: exit codes, output, and that nothing is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mmpt.launch import processes
from mmpt.launch.processes import Processes, job_environment
from mmpt.utils.errors import StorageError


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


def test_processor_seconds_are_those_of_the_command_and_of_what_it_waited_for() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass\n"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n{burn}"
    processes, pids = Processes(), []
    assert processes.run(python(code), job_environment(), started=pids.append) == 0
    assert processes.processor_seconds[pids[0]] >= 0.38  # both, in ticks of a hundredth


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


def test_a_console_that_goes_away_does_not_stop_a_job(tmp_path: Path) -> None:
    log, root = tmp_path / "log.txt", Path(__file__).parents[2]
    code = (
        "import pathlib, sys; from mmpt.launch.processes import Processes, job_environment\n"
        "many = [sys.executable, '-c', 'for n in range(50000): print(n)']\n"
        f"code = Processes().run(many, job_environment(), pathlib.Path({str(log)!r}))\n"
        f"open({str(tmp_path / 'code')!r}, 'w').write(str(code))"
    )
    launcher = subprocess.Popen(python(code), stdout=subprocess.PIPE, cwd=root, stderr=subprocess.DEVNULL)
    assert launcher.stdout is not None
    launcher.stdout.read(10)
    launcher.stdout.close()  # as head does
    launcher.wait(timeout=60)
    assert (tmp_path / "code").read_text() == "0"
    assert log.read_text().splitlines()[-1] == "49999"


def test_a_log_that_cannot_be_written_stops_the_job_by_name() -> None:
    talks = python("import time\nwhile True: print('more', flush=True); time.sleep(0.01)")
    with pytest.raises(StorageError, match="/dev/full: cannot be written .*the job was stopped"):
        Processes().run(talks, job_environment(), Path("/dev/full"), stream=False)


def test_nothing_begins_after_the_launcher_was_stopped(tmp_path: Path) -> None:
    running = Processes()
    running.stop()
    assert running.run(python(f"open({str(tmp_path / 'x')!r}, 'w')"), job_environment()) == -signal.SIGTERM
    assert not (tmp_path / "x").exists()


def test_an_exit_code_outlives_a_signal_that_comes_too_late() -> None:
    for _ in range(5):
        running, codes = Processes(), []
        process = threading.Thread(
            target=lambda p=running, out=codes: out.append(p.run(python("raise SystemExit(6)"), job_environment()))
        )
        process.start()
        while process.is_alive():
            running.signal(signal.SIGWINCH)  # which does nothing; but asking for its state would take the exit code
        process.join()
        assert codes == [6]


def test_without_gpus_a_job_sees_none() -> None:
    assert job_environment(gpus=0)["CUDA_VISIBLE_DEVICES"] == ""
    assert job_environment(gpus=2).get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")


def test_cores_are_shared_out_among_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    assert "OMP_NUM_THREADS" not in job_environment()
    assert job_environment(2)["OMP_NUM_THREADS"] == str(max(1, cores // 2))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert job_environment(2)["OMP_NUM_THREADS"] == "7"
