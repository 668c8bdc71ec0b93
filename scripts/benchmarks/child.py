"""One way of a work in a fresh process, which does what its parent asks for and nothing between."""

import contextlib
import importlib
import math
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmpt.utils.allocator import keep_freed_memory

__all__ = ["Child", "ChildFailed", "call_in_child", "find_work", "peak_bytes", "resident_bytes"]

_KIB = 1024
_SPAWN = multiprocessing.get_context("spawn")
#: Seconds until a process that does not answer is ended.
PATIENCE = 1800.0


class ChildFailed(RuntimeError):
    """A process raised, crashed or did not answer; the text says which, ``details`` what it printed."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


def find_work(module: str, name: str) -> Any:
    """Return a work of a module by its name."""
    return next(work for work in importlib.import_module(module).WORKS if work.name == name)


def resident_bytes() -> int:
    """Return the memory that this process holds now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Return the most memory that this process held since :func:`_forget_peak`, or since its start."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * _KIB
    return 0


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # then the peak is that since the start, building included
        return


class _Side:
    """What the child answers; each public method is a request."""

    def __init__(self, module: str, name: str, side: str, folder: str, sizes: dict[str, Any], threads: int) -> None:
        work = find_work(module, name)
        limit_threads(threads)
        if side == "ours" or work.reference_keeps:  # as commands and trainings do
            keep_freed_memory()
        self.start = resident_bytes()
        self.run = work.way(side)(Path(folder), **sizes)
        self.repeats = 1

    def check(self, target_seconds: float) -> tuple[Any, float]:
        """Do the first pass, which is not timed; return its result, and plan passes of about ``target_seconds``."""
        _forget_peak()
        found, seconds = self._timed()
        if not self.run.own_clock:
            if seconds < target_seconds:  # once more: the first was slower than the others will be
                seconds = min(seconds, self._timed()[1])
            self.repeats = max(1, min(100_000, math.ceil(target_seconds / max(seconds, 1e-7))))
        return self.run.check() if self.run.check else found, seconds

    def _timed(self) -> tuple[Any, float]:
        begin = time.perf_counter()
        found = self.run.call()
        return found, time.perf_counter() - begin

    def go(self) -> tuple[float, float]:
        """Do the planned passes; return seconds of the clock and of the processor per unit."""
        call, own = self.run.call, 0.0
        wall, busy = time.perf_counter(), time.process_time()
        for _ in range(self.repeats):
            found = call()
            if self.run.own_clock:
                own += float(found)
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
        done = self.repeats * self.run.units
        return (own or wall) / done, (own or busy) / done

    def memory(self) -> tuple[int, int]:
        """Return the peak of this process since it was ready, and what of that is beyond the imports."""
        peak = peak_bytes()
        return peak, max(0, peak - self.start)

    def cost(self) -> dict[str, Any]:
        """Return what a unit moves and computes, and further figures."""
        flop = self.run.flop
        if self.run.counted:
            from scripts.benchmarks.flops import count

            flop = count(self.run.call) / self.run.units
        figures = dict(self.run.figures()) if self.run.figures else {}
        return {
            "units": self.run.units,
            "flop": flop,
            "bytes": self.run.bytes,
            "bound": self.run.bound,
            "figures": figures,
        }


def limit_threads(threads: int) -> None:
    """Let torch, if it is loaded, compute on so many threads; other libraries read the environment."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


def _serve(connection: Any, output: str, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):  # what libraries print is shown if the process fails, and not between the rows
        os.dup2(descriptor, stream)
    try:
        side = make(*arguments)
        connection.send(("ready", None))
        while True:
            request, values = connection.recv()
            connection.send(("done", getattr(side, request)(*values)))
    except EOFError:
        return
    except BaseException as error:
        connection.send(("raised", (f"{type(error).__name__}: {error}", traceback.format_exc())))


class Child:
    """A process that holds one way of a work ready."""

    def __init__(self, arguments: tuple[Any, ...], threads: int, make: Callable[..., Any] = _Side) -> None:
        self._log = tempfile.NamedTemporaryFile(prefix="bench_", suffix=".log")  # noqa: SIM115  closed with the child
        self._connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, self._log.name, make, arguments), daemon=False)
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(threads)
        try:
            self._process.start()
        finally:
            os.environ.pop("OMP_NUM_THREADS")
            if before is not None:
                os.environ["OMP_NUM_THREADS"] = before
        theirs.close()
        self._answer()

    def ask(self, request: str, *values: Any) -> Any:
        """Have the process do a request and return its answer.

        Raises:
            ChildFailed: if it raises, ends or does not answer.
        """
        with contextlib.suppress(OSError):  # it has ended: reading says how
            self._connection.send((request, values))
        return self._answer()

    def _answer(self) -> Any:
        try:
            if not self._connection.poll(PATIENCE):
                raise ChildFailed(f"did not answer within {PATIENCE:.0f} s")
            kind, value = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode or 0
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise ChildFailed(f"the process {how}", Path(self._log.name).read_text(errors="replace")[-2000:]) from None
        if kind == "raised":
            raise ChildFailed(*value)
        return value

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._log.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *raised: Any) -> None:
        self.close()


class _Caller:
    """A process for one call of a function."""

    def do(self, call: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        return call(*arguments, **keywords)


def call_in_child(call: Callable[..., Any], *arguments: Any, threads: int = 1, **keywords: Any) -> Any:
    """Return what a function of a module returns in a fresh process.

    Raises:
        ChildFailed: if it raises or the process ends.
    """
    with Child((), threads, _Caller) as child:
        return child.ask("do", call, arguments, keywords)
