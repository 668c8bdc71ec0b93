"""Write one self-contained HTML page about a project's runs."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run by path: this folder is on sys.path then, the repository is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from mmpt.utils.errors import MMPTError

__all__ = ["main"]

_EXAMPLE = """\
examples:
  python -m mmpt_cli.report projects/demo.yaml --output runs/demo/report.html --videos data/demo/videos
  python -m mmpt_cli.report --runs runs/retri/videoclip --output report.html

Exit codes: 0 done, 1 the message says what is wrong, 2 wrong arguments.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="report.py", description=__doc__, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", nargs="?", help="project YAML")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE", help="set a config key")
    parser.add_argument("--runs", nargs="+", default=[], metavar="DIR", help="run folders, in place of a project")
    parser.add_argument("--output", required=True, metavar="FILE", help="the page to write")
    parser.add_argument("--videos", metavar="DIR", help="folder of video files, for pictures of the examples")
    parser.add_argument("--figures", metavar="DIR", help="write the figures as PNG files too")
    parser.add_argument("--title", help="heading of the page; default: name of the project or of the folder")
    options = parser.parse_args(arguments)
    if bool(options.project) == bool(options.runs):
        parser.error("give a project YAML, or run folders with --runs")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s | %(levelname)s | %(name)s | %(message)s")
    try:
        _write(options)
    except MMPTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _write(options: argparse.Namespace) -> None:
    from mmpt.evaluators.report import build_report, write_figures, write_report
    from mmpt.evaluators.results import results_table
    from mmpt_cli.run_folders import folders_of

    folders = folders_of(options.project, options.override, options.runs)
    title = options.title or Path(options.project or options.runs[0]).stem
    report = build_report(title, folders.tests, folders.trainings, folders.names, options.videos)
    write_report(report, options.output)
    print(results_table(report.results, report.missing))
    print(f"wrote {options.output}")
    if options.figures:
        print(f"wrote {len(write_figures(report, options.figures))} figures to {options.figures}")
    for problem in report.problems:
        print(f"note: {problem}")


if __name__ == "__main__":
    sys.exit(main())
