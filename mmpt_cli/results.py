"""Print the table of a project's test results."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run by path: this folder is on sys.path then, the repository is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from mmpt.utils.errors import MMPTError

__all__ = ["main"]

_EXAMPLE = """\
examples:
  python -m mmpt_cli.results projects/demo.yaml
  python -m mmpt_cli.results --runs runs/demo --json

Exit codes: 0 done, 1 the message says what is wrong (or nothing was evaluated yet), 2 wrong arguments.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="results.py", description=__doc__, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", nargs="?", help="project YAML")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE", help="set a config key")
    parser.add_argument("--runs", nargs="+", default=[], metavar="DIR", help="run folders, in place of a project")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    if bool(options.project) == bool(options.runs):
        parser.error("give a project YAML, or run folders with --runs")
    try:
        from mmpt.evaluators.results import collect_results, results_json, results_table
        from mmpt_cli.run_folders import folders_of

        folders = folders_of(options.project, options.override, options.runs)
        results, missing = collect_results(folders.tests, folders.names)
    except MMPTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(results_json(results), indent=2))
    else:
        print(results_table(results, missing))
    return 0 if results else 1


if __name__ == "__main__":
    sys.exit(main())
