"""Tell which system answers which call, which models answer one, or what a model of your own answers."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from mmpt_cli.models import add_model_arguments, load
from mmpt_cli.run_folders import exit_code

__all__ = ["build_parser", "main"]

_EXAMPLE = """\
examples:
  mmpt capabilities
  mmpt capabilities caption
  mmpt capabilities --model runs/demo/vtt

The calls are those of mmpt.api.VideoTextPipeline: classify, segment, caption and answer are commands too; choose is
answer with --options, and index is what mmpt index needs.
With --json: systems{} of calls[]; of a call, models[] of system, model_cls, example; of a model, system, calls[].
Exit codes: 0 done, 2 the message says what is wrong, 130 interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="mmpt capabilities",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("call", nargs="?", metavar="CALL", help="which models answer this call")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_model_arguments(parser, required=False)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from mmpt.utils.errors import ConfigError

    if options.model and options.call:
        raise ConfigError("give a call or --model, not both")
    if options.model:
        document, text = _of_model(options)
    else:
        document, text = _of_call(options.call) if options.call else _of_systems()
    print(json.dumps(document, indent=2) if options.json else text)
    return 0


def _of_systems() -> tuple[dict[str, Any], str]:
    from mmpt.api.capability import CALLS, SYSTEMS, rows_with
    from mmpt.evaluators.results import aligned

    able = {call: rows_with(call) for call in CALLS}
    rows = [["call", *SYSTEMS]]
    rows += [[call, *("yes" if system in able[call] else "-" for system in SYSTEMS)] for call in CALLS]
    return {"systems": {system: [call for call in CALLS if system in able[call]] for system in SYSTEMS}}, aligned(rows)


def _of_call(call: str) -> tuple[dict[str, Any], str]:
    from mmpt.api.capability import CALLS, ROWS, SYSTEMS
    from mmpt.evaluators.results import aligned
    from mmpt.utils.errors import MMPTError, nearest

    if call not in CALLS:
        raise MMPTError(f"there is no call {call!r} (there are {', '.join(CALLS)}).{nearest(call, CALLS)}")
    able = sorted((row for row in ROWS if call in row.calls), key=lambda row: SYSTEMS.index(row.system))
    models = [{"system": row.system, "model_cls": row.model_cls, "example": row.example} for row in able]
    heading = ["system", "model.model_cls", "a config that makes or tests one"]
    return {"call": call, "models": models}, aligned([heading, *(list(model.values()) for model in models)])


def _of_model(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from mmpt.api.capability import CALLS

    pipeline = load(options)
    calls = [call for call in CALLS if call in pipeline.calls]
    name = type(pipeline.model).__name__
    document = {"model": options.model, "model_cls": name, "system": pipeline.system, "calls": calls}
    return document, f"{options.model}: {name} (of {pipeline.system}) has {', '.join(calls)}"


if __name__ == "__main__":
    sys.exit(main())
