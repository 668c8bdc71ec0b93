"""Signals that ask a process to leave, and the wish that it should not outlive its parent."""

import ctypes
import functools
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
            _hold_back_in_children()
            for number in self.SIGNALS:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)


@functools.cache
def _hold_back_in_children() -> None:
    """Let a process that one who listens forks (a data worker) not be ended before it can :func:`overlook_first`."""
    os.register_at_fork(after_in_child=_hold_back)


def _hold_back() -> None:
    if getattr(signal.getsignal(signal.SIGTERM), "__func__", None) is LeaveRequest._note:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel (Linux) to send this process a signal when its parent is gone, however it went."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)


def die_with_torchrun() -> None:
    """See to it that a worker started by torchrun ends with it: by itself it outlives one that was killed."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent(signal.SIGKILL)


def overlook_first(number: signal.Signals = signal.SIGTERM) -> None:
    """Let the first signal of a kind pass in this process, one held back included; a second one ends it as always."""
    signal.signal(number, lambda *_: signal.signal(number, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
