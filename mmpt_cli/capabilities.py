"""Tell which system, or which model, answers which call."""

import argparse
import json
import sys
from collections.abc import Sequence

from mmpt_cli.models import add_model_arguments, load
from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import exit_code

__all__ = ["build_parser", "main"]

_EXAMPLE = """\
examples:
  mmpt capabilities
  mmpt capabilities caption
  mmpt capabilities --model runs/demo --json

A cell names the class (model.model_cls) that answers the call; with a call, also a config of it.
Exit codes: 0 done, 2 the message says what is wrong, 130 interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser(
        prog="mmpt capabilities",
        description=__doc__,
        epilog=_EXAMPLE,
    )
    parser.add_argument("call", nargs="?", metavar="CALL", help="only this one, as answer or encode_text")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_model_arguments(parser, required=False)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: _run(options), as_json=options.json)


def _run(options: argparse.Namespace) -> int:
    from mmpt.api.capability import CALLS, rows_with
    from mmpt.utils.errors import MMPTError, nearest

    if options.call is not None and options.call not in CALLS:
        raise MMPTError(f"{options.call!r} is none of {', '.join(CALLS)}.{nearest(options.call, CALLS)}")
    calls = CALLS if options.call is None else (options.call,)
    if options.model:
        return _of_model(options, calls)
    found = {
        call: {system: {"model_cls": row.model_cls, "example": row.example} for system, row in rows_with(call).items()}
        for call in calls
    }
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    for call, systems in found.items():
        print(call)
        for system, row in systems.items():
            config = f"  {row['example']}" if options.call is not None else ""
            print(f"  {system:15s}{row['model_cls']}{config}")
    return 0


def _of_model(options: argparse.Namespace, calls: Sequence[str]) -> int:
    pipeline = load(options)
    has = {call: call in pipeline.calls for call in calls}
    if options.json:
        about = {"model": options.model, "system": pipeline.system, "model_cls": type(pipeline.model).__name__}
        print(json.dumps({**about, "calls": has}, indent=2))
        return 0
    print(f"{options.model}: {type(pipeline.model).__name__} of {pipeline.system}")
    for call, there in has.items():
        print(f"  {call:15s}{'yes' if there else 'no'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
