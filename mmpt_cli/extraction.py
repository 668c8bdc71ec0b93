"""What the commands that work on many videos share: which videos, the closing report, exit codes."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from mmpt.store.extraction_job import ExtractionSummary
from mmpt.store.video_list import VideoItem, find_videos
from mmpt.utils.allocator import keep_freed_memory
from mmpt.utils.errors import MMPTError
from mmpt_cli import run_folders

__all__ = [
    "add_max_failed",
    "add_video_arguments",
    "add_videos_per_shard",
    "check_arguments",
    "exit_code",
    "judged",
    "refuse_unused",
    "report",
    "run_command",
    "videos_of",
]

SHOWN = 5


def add_video_arguments(parser: argparse.ArgumentParser, *more_names: str) -> None:
    """Add the arguments that say which videos, how they are decoded, and when the run has failed.

    Args:
        parser: of the command.
        more_names: under which ``--videos`` is known too.
    """
    add = parser.add_argument
    add(
        "--videos",
        *more_names,
        dest="videos",
        nargs="+",
        required=True,
        help="folders (all levels below; commas separate too), CSVs with columns video_id,path[,start,end], "
        "lists with one path per line, or video files",
    )
    add("--root", metavar="DIR", help="paths of CSVs and lists start here, and may not lead out of it")
    add(
        "--workers",
        "--num_decoding_thread",
        "--num-decoding-thread",
        type=int,
        default=max(1, min(4, (os.cpu_count() or 1) // 2)),
        help="threads that decode (half of the cores, at most 4); 0: no threads",
    )
    add(
        "--video-timeout",
        type=float,
        default=600,
        metavar="SECONDS",
        help="give up a video whose decoding takes longer than this and ten times the length decoded so far (600)",
    )
    add("--json", action="store_true", help="print the summary as one JSON document")
    add_max_failed(parser, "videos")


def add_max_failed(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--max-failed``, ``--force`` and ``--quiet``."""
    add = parser.add_argument
    add("--force", action="store_true", help="do again what is there (with the same settings)")
    add("--max-failed", type=float, default=0.1, help=f"highest share of failed {what} for exit code 0, 0 to 1 (0.1)")
    add("--quiet", action="store_true", help="no progress bar")


def add_videos_per_shard(parser: argparse.ArgumentParser, default: object) -> None:
    """Add ``--videos-per-shard``; ``default`` is told in the help, and None stands for it."""
    parser.add_argument(
        "--videos-per-shard",
        type=int,
        metavar="N",
        help=f"entries of a shard of the store; a killed run loses at most so many ({default})",
    )


def refuse_unused(args: argparse.Namespace, **applies: bool) -> None:
    """Refuse options that were given and do not apply.

    Args:
        args: the arguments, whose options are None or False where they were not given.
        applies: of each option, whether it applies.

    Raises:
        MMPTError: names the options.
    """
    unused = [f"--{name.replace('_', '-')}" for name, used in applies.items() if not used and getattr(args, name)]
    if unused:
        raise MMPTError(f"{', '.join(unused)}: of no effect with the other options (see --help); leave it out")


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse values out of range of the arguments that are here.

    Raises:
        MMPTError: names the argument.
    """
    if not 0 <= args.max_failed <= 1:
        raise MMPTError(f"--max-failed {args.max_failed} is not a share, 0 to 1")
    if getattr(args, "workers", 0) < 0:
        raise MMPTError(f"--workers {args.workers} must be at least 0")
    if getattr(args, "videos_per_shard", None) is not None and args.videos_per_shard < 1:
        raise MMPTError(f"--videos-per-shard {args.videos_per_shard} must be at least 1")
    if not getattr(args, "video_timeout", 1) > 0:
        raise MMPTError(f"--video-timeout {args.video_timeout} is not a time in seconds above 0")


def videos_of(args: argparse.Namespace) -> tuple[list[VideoItem], list[str]]:
    """Return the videos that ``--videos`` and ``--root`` name, and the files of folders that do not look like videos.

    Raises:
        MMPTError: as :func:`mmpt.store.video_list.find_videos`.
    """
    sources = [part for entry in args.videos for part in ([entry] if os.path.exists(entry) else entry.split(","))]
    left_out: list[str] = []
    return find_videos(sources, left_out, args.root), left_out


def report(
    summary: ExtractionSummary,
    max_failed: float,
    left_out: list[str] | None = None,
    what: str = "videos",
    as_json: bool = False,
) -> int:
    """Print what was done and return the exit code: 1 if more than the share ``max_failed`` failed, else 0."""
    if as_json:
        document = {**asdict(summary), "failed": summary.failed, "left_out": left_out or []}
        print(json.dumps(document, indent=2))  # in ASCII: a name need not be UTF-8
    else:
        print(summary.describe())
    if left_out and not as_json:
        names = ", ".join(left_out[:SHOWN]) + (", ..." if len(left_out) > SHOWN else "")
        names = names.encode(errors="backslashreplace").decode()  # a name need not be UTF-8
        print(f"  left out: {len(left_out)} files that do not look like videos: {names}")
    return judged(summary.failed_fraction, max_failed, what)


def judged(failed: float, max_failed: float, what: str = "videos") -> int:
    """Return the exit code of a run of which the share ``failed`` failed: 1, with a line, for more than may; else 0."""
    if failed <= max_failed:
        return 0
    print(f"error: {failed:.0%} of the {what} failed, --max-failed is {max_failed:.0%}", file=sys.stderr)
    return 1


def exit_code(command: Callable[[], int], as_json: bool = False) -> int:
    """Run a resumable command: its code, 2 for an error that a user can put right, 130 if interrupted."""
    return run_folders.exit_code(command, resumes=True, as_json=as_json)


def run_command(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None,
    level: int = logging.INFO,
) -> int:
    """Run a resumable command whose parser has ``--quiet``; return its exit code, as :func:`exit_code`.

    Args:
        parser: of the command; with ``--json`` errors are documents too.
        command: is run with the arguments.
        argv: the arguments; None: those of the process.
        level: of the lines that are logged without ``--quiet``; with it, errors alone are.
    """
    args = parser.parse_args(argv)
    keep_freed_memory()
    logging.basicConfig(level=logging.ERROR if args.quiet else level, format="%(message)s")
    return exit_code(lambda: command(args), as_json=getattr(args, "json", False))
