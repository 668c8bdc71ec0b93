"""List the jobs of a project: state, progress and results, local or on Slurm; cancel them."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run by path: this folder is on sys.path then, the repository is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import EXIT_CODES, exit_code

if TYPE_CHECKING:
    from mmpt.launch.jobs import JobView

__all__ = ["build_parser", "main"]

_EXAMPLE = f"""\
examples:
  mmpt jobs projects/retri/videoclip.yaml
  mmpt jobs projects/retri/videoclip.yaml --tail 20 --only how2 vtt_videoclip
  mmpt jobs projects/retri/videoclip.yaml --watch 30
  mmpt jobs projects/retri/videoclip.yaml --cancel

States: not run, pending (in Slurm's queue), requeued (in it again), running, completed, failed, cancelled,
interrupted (its process is gone without a word: the launcher's command goes on from its last checkpoint).
{EXIT_CODES}
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser(prog="mmpt jobs", description=__doc__, epilog=_EXAMPLE)
    parser.add_argument("project", help="project YAML, or the YAML of one job")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE", help="set a config key")
    parser.add_argument("--only", nargs="+", default=[], metavar="JOB", help="names of jobs, with or without .yaml")
    parser.add_argument("--tail", type=int, default=0, metavar="N", help="show the last N lines of each job's log")
    parser.add_argument(
        "--watch", type=float, metavar="SECONDS", help="show again every so often, until all have ended"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--cancel", action="store_true", help="end what runs or waits; trainings save first if they can"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options), as_json=options.json)


def _run(options: argparse.Namespace) -> int:
    from mmpt.launch.jobs import cancel_jobs, look_at
    from mmpt.launch.project import jobs_of

    jobs = jobs_of(options.project, options.override, options.only)
    if options.cancel:
        lines = cancel_jobs(look_at(jobs))
        print(json.dumps({"cancelled": lines}) if options.json else "\n".join(lines) or "nothing runs or waits")
        return 0
    while True:
        views = look_at(jobs)
        _print(views, options)
        if options.watch is None or not any(view.active for view in views):
            return 0
        time.sleep(max(options.watch, 1.0))
        print()


def _print(views: Sequence["JobView"], options: argparse.Namespace) -> None:
    from mmpt.launch.jobs import jobs_table

    if options.json:
        print(json.dumps([view.as_dict() for view in views], indent=2))
        return
    print(jobs_table(views))
    for view in views if options.tail else ():
        if view.state is not None:
            print(f"\n{view.job.name} ({view.job.run_dir / 'log.txt'}):\n{view.tail(options.tail)}")


if __name__ == "__main__":
    sys.exit(main())
