"""Check the installation, and say how to mend what is wrong."""

import argparse
import contextlib
import json
import logging
import sys
from collections.abc import Sequence

from mmpt_cli.closed_pipes import quiet_when_closed
from mmpt_cli.doctor_findings import LEVELS, Check, examine
from mmpt_cli.doctor_machine import MACHINE_CHECKS
from mmpt_cli.doctor_packages import PACKAGE_CHECKS
from mmpt_cli.parsers import Parser

__all__ = ["CHECKS", "build_parser", "main"]

#: A check is a function without arguments that yields findings.
CHECKS: tuple[Check, ...] = (*PACKAGE_CHECKS, *MACHINE_CHECKS)

_EXAMPLE = """\
examples:
  mmpt doctor
  mmpt doctor --json | jq '.findings[] | select(.level != "ok")'

ok: all is well; note: something that not everyone needs; warning: something may go wrong; error: something will.
With --json: findings[] of check, level, what, fix; worst.
Exit codes: 0 no error, 1 an error was found.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser(
        prog="mmpt doctor",
        description=__doc__,
        epilog=_EXAMPLE,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


@quiet_when_closed
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.ERROR)
    findings, out = [], sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # some packages greet whoever imports them
        for check, finding in examine(CHECKS):
            findings.append({"check": check, **finding.as_dict()})
            if not options.json:
                fix = f"\n         fix: {finding.fix}" if finding.fix and finding.level != "ok" else ""
                print(f"{finding.level:<7}  {finding.what}{fix}", file=out, flush=True)
    worst = max((finding["level"] for finding in findings), key=LEVELS.index, default="ok")
    if options.json:
        print(json.dumps({"findings": findings, "worst": worst}, indent=2))
    return 1 if worst == "error" else 0


if __name__ == "__main__":
    sys.exit(main())
