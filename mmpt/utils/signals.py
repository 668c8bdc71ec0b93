"""Signals that ask a process to leave, and the wish that it should not outlive its parent."""

import atexit
import ctypes
import functools
import multiprocessing.util  # now: what it does at the end then comes after what is registered here
import os
import signal
import sys
import threading
from types import FrameType

__all__ = ["LEFT_EARLY", "LeaveRequest", "die_with_parent", "die_with_torchrun", "overlook_first"]

#: Exit code of a training that was asked to leave, has saved, and can go on from there (EX_TEMPFAIL of sysexits.h).
LEFT_EARLY = 75

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class LeaveRequest:
    """Note the signals by which a cluster or a person asks a process to leave, instead of dying of them.

    ``SIGTERM`` comes from ``kill``, the launcher, and Slurm when it cancels or preempts a job; ``SIGUSR2`` from Slurm
    ahead of the time limit. ``agreed`` is for the workers of one training: set once all of them know.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR2)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.agreed = False

    def listen(self) -> None:
        """Begin to note signals; does nothing outside the main thread, where Python has no signals."""
        if threading.current_thread() is threading.main_thread():
            _look_after_children()
            for number in self.SIGNALS:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)


#: Whether this process was forked by one who listens, and SIGTERM is held back in it.
_held_back = False


@functools.cache
def _look_after_children() -> None:
    """Let a process that one who listens forks (a data worker) stay when the whole job is told to go, but no longer.

    At the end of this process its children are killed: multiprocessing would ask them by the signal that they overlook,
    and wait for ever.
    """
    os.register_at_fork(after_in_child=_hold_back)
    atexit.register(_end_children)


def _hold_back() -> None:
    global _held_back
    if getattr(signal.getsignal(signal.SIGTERM), "__func__", None) is LeaveRequest._note:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        _held_back = True


def _end_children() -> None:
    for child in multiprocessing.active_children():
        child.kill()


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel (Linux) to send this process a signal when its parent is gone, however it went."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)


def die_with_torchrun() -> None:
    """See to it that a worker started by torchrun ends with it: by itself it outlives one that was killed."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent(signal.SIGKILL)


def overlook_first() -> None:
    """Let the first SIGTERM pass, in a process that was forked by one who listens; a second one ends it as always.

    Until then it was held back. In any other process nothing changes.
    """
    if _held_back:
        signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
