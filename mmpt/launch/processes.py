"""Commands as subprocesses: output to a log, signals passed on, nothing left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from mmpt.utils.files import REPOSITORY
from mmpt.utils.signals import die_with_parent

__all__ = ["Processes", "job_environment"]

#: How long a job that is asked to stop has for it, saving a checkpoint included.
SECONDS_TO_STOP = 10.0


def job_environment(workers: int = 1) -> dict[str, str]:
    """Return the environment of a job's command; the cores are shared out among ``workers`` of this machine."""
    # Threads that spin while they wait take the cores from the data workers, and from everything else.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), environment.get("PYTHONPATH")]))
    if workers > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // workers)))
    return environment


class Processes:
    """The commands that are running. Each has a process group of its own, which ends with it."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        log: Path | None = None,
        stream: bool = True,
        keep: Sequence[int] = (),
        started: Callable[[int], None] = lambda pid: None,
    ) -> int:
        """Run a command to its end; return its exit code, negative for the signal that ended it.

        Args:
            log: file that its output is appended to.
            stream: whether its output goes to the console.
            keep: file descriptors that it inherits.
            started: called with the process id.
        """
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            pass_fds=tuple(keep),
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self._running.add(process)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(log.open("ab")) if log is not None else None
            assert process.stdout is not None
            pump = threading.Thread(target=_copy, args=(process.stdout, file, stream), daemon=True)
            pump.start()
            try:
                started(process.pid)
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            except BaseException:
                self.stop()
                raise
            finally:
                # Before it is reaped, so that the number of its group is still its own.
                _end_group(process.pid)
                process.wait()
                pump.join(SECONDS_TO_STOP)  # what has left its group may hold the other end
                self._running.discard(process)
        return process.returncode

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on to every command that is running."""
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    def stop(self) -> None:
        """End every command that is running: asked first, killed after ten seconds."""
        self.stopped = True
        running = list(self._running)
        self.signal(signal.SIGTERM)
        deadline = threading.Event()
        timer = threading.Timer(SECONDS_TO_STOP, deadline.set)
        timer.daemon = True
        timer.start()
        while any(_alive(process.pid) for process in running) and not deadline.wait(0.05):
            pass
        timer.cancel()
        for process in running:
            _end_group(process.pid)


def _copy(source: IO[bytes], file: IO[bytes] | None, stream: bool) -> None:
    while chunk := os.read(source.fileno(), 65536):
        if file is not None:
            file.write(chunk)
            file.flush()
        if stream:
            sys.stdout.buffer.write(chunk)
            sys.stdout.flush()


def _alive(pid: int) -> bool:
    """Tell whether a child runs; one that has ended and was not reaped yet does not."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
