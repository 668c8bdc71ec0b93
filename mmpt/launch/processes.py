"""Commands as subprocesses: output to a log, signals passed on, nothing left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmpt.utils.errors import StorageError
from mmpt.utils.files import REPOSITORY
from mmpt.utils.signals import die_with_parent

__all__ = ["Processes", "job_environment"]

#: How long a job that is asked to stop has for it, saving a checkpoint included.
SECONDS_TO_STOP = 10.0


def job_environment(workers: int = 1, gpus: int | None = None) -> dict[str, str]:
    """Return the environment of a job's command; the cores are shared out among ``workers`` of this machine.

    With ``gpus`` 0 it sees none, also where there are some: they may be another's.
    """
    # Threads that spin while they wait take the cores from the data workers, and from everything else.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), environment.get("PYTHONPATH")]))
    if gpus == 0:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    if workers > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // workers)))
    return environment


class Processes:
    """The commands that are running. Each has a process group of its own, which ends with it."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False
        #: Seconds that processors spent on each command that has ended, by its process id; where the system tells.
        self.processor_seconds: dict[int, float] = {}

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

        After :meth:`stop` nothing is begun: the exit code is then that of SIGTERM.

        Args:
            log: file that its output is appended to.
            stream: whether its output goes to the console.
            keep: file descriptors that it inherits.
            started: called with the process id.

        Raises:
            StorageError: if the log cannot be written; the command is stopped then.
        """
        if self.stopped:
            return -signal.SIGTERM
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
        output = _Output(process, log, stream)
        output.start()
        try:
            if self.stopped:  # while it was being started
                os.kill(process.pid, signal.SIGTERM)
            started(process.pid)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with contextlib.suppress(OSError, ValueError, IndexError):
                self.processor_seconds[process.pid] = _processor_seconds(process.pid)
        except BaseException:
            self.stop()
            raise
        finally:
            # Before it is reaped, so that the number of its group is still its own.
            _end_group(process.pid)
            self._running.discard(process)
            process.wait()
            output.join(SECONDS_TO_STOP)  # what has left its group may hold the other end
        if output.problem is not None:
            raise StorageError(f"{log}: cannot be written ({output.problem.strerror}): the job was stopped")
        return process.returncode

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on to every command that is running."""
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)  # send_signal would reap one that has just ended, and lose its exit code

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


class _Output(threading.Thread):
    """Copies a command's output to its log and the console, and reads on whatever becomes of these.

    Output that nobody reads would block the command for ever.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path | None, stream: bool) -> None:
        super().__init__(daemon=True)
        assert process.stdout is not None
        self._process, self._source, self._stream = process, process.stdout, stream
        self._file = log.open("ab") if log is not None else None
        #: What kept the log from being written.
        self.problem: OSError | None = None

    def run(self) -> None:
        """Copy until the other end is closed."""
        while chunk := os.read(self._source.fileno(), 65536):
            if self._file is not None and self.problem is None:
                try:
                    self._file.write(chunk)
                    self._file.flush()
                except OSError as error:
                    self.problem = error
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self._process.pid, signal.SIGTERM)
            if self._stream:
                try:
                    sys.stdout.buffer.write(chunk)
                    sys.stdout.flush()
                except (OSError, ValueError):  # a terminal that went away, or a pipe into head: the log has it all
                    self._stream = False
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def _processor_seconds(pid: int) -> float:
    """Return what Linux counted for a process that has ended and is not reaped yet, and for those it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _alive(pid: int) -> bool:
    """Tell whether a child runs; one that has ended and was not reaped yet does not."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
