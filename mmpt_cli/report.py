"""Write one self-contained HTML page about a project's runs."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run by path: this folder is on sys.path then, the repository is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import EXIT_CODES, add_folder_arguments, exit_code, folders_of

__all__ = ["build_parser", "main"]

_EXAMPLE = f"""\
examples:
  mmpt report projects/demo.yaml --output runs/demo/report.html --videos data/demo/videos
  mmpt report projects/compare.yaml --compare --output runs/compare/report.html
  mmpt report --runs runs/retri/videoclip --output report.html

{EXIT_CODES}
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser(prog="mmpt report", description=__doc__, epilog=_EXAMPLE)
    add_folder_arguments(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="the page to write")
    parser.add_argument("--videos", metavar="DIR", help="folder of video files, for pictures of the examples")
    parser.add_argument("--figures", metavar="DIR", help="write the figures as PNG files too")
    parser.add_argument(
        "--compare", action="store_true", help="begin with a leaderboard of systems and seeds, and on what terms"
    )
    parser.add_argument("--title", help="heading of the page; default: name of the project or of the folder")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    return exit_code(lambda: _write(parser, options), as_json=options.json)


def _write(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from mmpt.evaluators.report import build_report, write_figures, write_report
    from mmpt.evaluators.results import results_json, results_table

    folders = folders_of(parser, options)
    title = options.title or Path(options.project or options.runs[0]).resolve().stem
    report = build_report(title, folders.tests, folders.trainings, folders.names, options.videos, options.compare)
    write_report(report, options.output)
    figures = write_figures(report, options.figures) if options.figures else []
    if options.json:
        written = {"wrote": options.output, "figures": [str(path) for path in figures], "problems": report.problems}
        print(json.dumps({**written, "results": results_json(report.results)}, indent=2))
        return 0
    print(results_table(report.results, report.missing))
    print(f"wrote {options.output}")
    if options.figures:
        print(f"wrote {len(figures)} figures to {options.figures}")
    for problem in report.problems:
        print(f"note: {problem}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
