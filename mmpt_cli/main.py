"""The ``mmpt`` command: one name for all commands, each a module of this package with its own ``main``."""

import importlib
import sys
from collections.abc import Sequence

__all__ = ["COMMANDS", "main"]

#: Command -> module of this package.
COMMANDS = {"launch": "launch", "jobs": "jobs", "results": "results", "report": "report", "average": "average"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in COMMANDS:
        print("usage: mmpt COMMAND ...\ncommands: " + ", ".join(COMMANDS), file=sys.stderr)
        return 2
    return int(importlib.import_module(f"mmpt_cli.{COMMANDS[given[0]]}").main(given[1:]))


if __name__ == "__main__":
    sys.exit(main())
