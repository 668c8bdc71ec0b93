"""Print the table of a project's test results."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run by path: this folder is on sys.path then, the repository is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import EXIT_CODES, add_folder_arguments, exit_code, folders_of

if TYPE_CHECKING:
    from mmpt.evaluators.results import Result

__all__ = ["build_parser", "main"]

_EXAMPLE = f"""\
examples:
  mmpt results projects/demo.yaml
  mmpt results --runs runs/demo --json
  mmpt results projects/compare.yaml --compare

{EXIT_CODES}
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser(prog="mmpt results", description=__doc__, epilog=_EXAMPLE)
    add_folder_arguments(parser)
    parser.add_argument(
        "--compare", action="store_true", help="a leaderboard of systems over their seeds, and on what terms they stand"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    return exit_code(lambda: _print(parser, options), as_json=options.json)


def _print(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from mmpt.evaluators.results import collect_results, results_json, results_table

    folders = folders_of(parser, options)
    results, missing = collect_results(folders.tests, folders.names)
    if options.compare:
        return _compare(results, missing, options.json)
    print(json.dumps(results_json(results), indent=2) if options.json else results_table(results, missing))
    return 0 if results else 1


def _compare(results: "Sequence[Result]", missing: Sequence[Path], as_json: bool) -> int:
    from mmpt.evaluators.comparison import build_comparison, leaderboard, leaderboard_json
    from mmpt.evaluators.equal_terms import terms_json, terms_of, terms_table
    from mmpt.evaluators.results import aligned

    if not results:
        return 1
    comparison = build_comparison(results)
    comparison.reasons += [f"no result yet: {folder}" for folder in missing]
    terms = terms_of(comparison)
    if as_json:
        print(json.dumps({**leaderboard_json(comparison), "terms": terms_json(terms)}, indent=2))
    else:
        print(f"{leaderboard(comparison)}\n\n{aligned(terms_table(terms, comparison.systems))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
