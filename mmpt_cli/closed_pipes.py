"""What to do when the reader of a pipe has seen enough, as ``mmpt results … | head``: end, without a word."""

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

__all__ = ["PIPE_CLOSED", "quiet_when_closed"]

#: The exit code of a program that SIGPIPE ends.
PIPE_CLOSED = 141

Given = ParamSpec("Given")


def quiet_when_closed(command: Callable[Given, int]) -> Callable[Given, int]:
    """Let a command end with :data:`PIPE_CLOSED` where what it prints to is closed; all that it printed is flushed."""

    @functools.wraps(command)
    def run(*given: Given.args, **named: Given.kwargs) -> int:
        try:
            try:
                return command(*given, **named)
            finally:  # the help of argparse leaves by SystemExit
                sys.stdout.flush()
        except BrokenPipeError:
            _to_nowhere()
            return PIPE_CLOSED

    return run


def _to_nowhere() -> None:
    """Turn standard output to nowhere: the interpreter flushes it once more at its end, and would complain."""
    with contextlib.suppress(OSError, ValueError):  # a test's stream has no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
