"""The command line that the demo corpora share: where to, which seed, how many videos, how many processes."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmpt.utils.errors import MMPTError

__all__ = ["corpus_command"]


def corpus_command(
    description: str | None,
    output: str,
    default: Any,
    generate: Callable[[Path, int, Any, int], int],
    argv: Sequence[str] | None,
) -> int:
    """Parse a command line and generate a corpus; return the exit code, 2 with a message upon an error of ours.

    Args:
        description: the text of ``--help``.
        output: folder, by default.
        default: a dataclass of the numbers of videos, each of which becomes a flag.
        generate: called with the folder, the seed, the numbers and how many processes may render.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(output), help="folder (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another corpus (default 0)")
    for name, value in asdict(default).items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=int, default=value, metavar="N", help=f"number of videos (default {value})")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    arguments = parser.parse_args(argv)
    counts = type(default)(**{name: getattr(arguments, name) for name in asdict(default)})
    try:
        return generate(arguments.output, arguments.seed, counts, arguments.workers)
    except MMPTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
