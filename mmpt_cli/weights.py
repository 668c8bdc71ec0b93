"""The published files that the systems can use: list them, verify local copies, fetch from a mirror that you name."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import exit_code

__all__ = ["build_parser", "main"]

_EXAMPLE = """\
examples:
  mmpt weights
  mmpt weights list --system VIOLET --json
  mmpt weights verify --root pretrained_models
  mmpt weights fetch violet --mirror https://mirror.example.org/violet
  mmpt weights fetch violet-task --name ckpt_violet_msrvtt-qa.pt --mirror /mnt/share/weights

Nothing is fetched from anywhere but the mirror that you name; a transfer that broke off goes on where it stopped.
Exit codes: 0 done, 1 a file that is there is not what it should be, 2 the message says what is wrong, 130 interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(prog="mmpt weights", description=__doc__, epilog=_EXAMPLE)
    parser.set_defaults(run=_list, system=None)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    actions = parser.add_subparsers(title="actions", metavar="list | verify | fetch")
    for name, run, about in (
        ("list", _list, "every published file: what it is, where to put it, what reads it (the default)"),
        ("verify", _verify, "size, sha256 and content of what is here"),
        ("fetch", _fetch, "one entry, from a mirror"),
    ):
        action = actions.add_parser(name, help=about, description=about)
        action.set_defaults(run=run)
        # Without a default, which would take back what stands before the action.
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
        if name == "list":
            action.add_argument("--system", help="only files of this system, as VideoCLIP or 'MERLOT Reserve'")
            continue
        action.add_argument("--root", default="pretrained_models", metavar="DIR", help="the folder of weights")
        if name == "verify":
            action.add_argument("names", nargs="*", metavar="NAME", help="entries (default: all)")
            continue
        action.add_argument("entry", metavar="NAME", help="an entry of the list")
        action.add_argument("--mirror", required=True, metavar="URL_OR_DIR", help="where the file is")
        action.add_argument("--name", metavar="FILE", help="which file, where the entry stands for several")
        action.add_argument("--sha256", help="what the file must have")
        action.add_argument("--force", action="store_true", help="replace what is there")
        action.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: options.run(options), as_json=options.json)


def _list(options: argparse.Namespace) -> int:
    from mmpt.api.capability import SYSTEMS
    from mmpt.api.weights import published
    from mmpt.utils.errors import MMPTError, nearest

    if options.system is not None and options.system not in SYSTEMS:
        hint = nearest(options.system, SYSTEMS)
        raise MMPTError(f"--system {options.system}: is none of {', '.join(SYSTEMS)}.{hint}")
    entries = [entry for entry in published() if options.system is None or options.system in entry.systems]
    if options.json:
        print(json.dumps([entry.as_dict() for entry in entries], indent=2))
        return 0
    for entry in entries:
        print(f"{entry.name}: {entry.what} ({', '.join(entry.systems)})")
        print("  put it at   " + "\n              ".join(f"pretrained_models/{file}" for file in entry.files))
        print(f"  read by     {entry.read_by}")
        size = "unknown" if entry.size is None else f"{sum(entry.size):,} bytes"
        sums = "unknown" if entry.sha256 is None else "\n              ".join(entry.sha256)
        print(f"  size        {size}")
        print(f"  sha256      {sums}")
        if entry.host_gone:
            print("  its host is reported to be gone: take a local copy, or a mirror that you trust")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from mmpt.api.weights import verify

    found = []
    for checked in verify(options.root, options.names):
        found.append(checked)
        if not options.json:
            print(_line(checked))
    if options.json:
        print(json.dumps([checked.as_dict() for checked in found], indent=2))
    elif not found:
        print(f"none of the published files is below {options.root}")
    return 1 if any(checked.fault for checked in found) else 0


def _fetch(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from mmpt.api.weights import entry_named
    from mmpt.api.weights_fetch import fetch

    entry = entry_named(options.entry)
    with tqdm(unit="B", unit_scale=True, disable=options.quiet or not sys.stderr.isatty()) as bar:

        def progress(name: str, done: int, total: int | None) -> None:
            bar.set_description(name, refresh=False)
            bar.total = total
            bar.update(done - bar.n)

        found = fetch(
            entry,
            options.mirror,
            options.root,
            name=options.name,
            sha256=options.sha256,
            force=options.force,
            progress=progress,
        )
    if options.json:
        print(json.dumps([checked.as_dict() for checked in found], indent=2))
    else:
        print("\n".join(map(_line, found)))
    return 0


def _line(checked: Any) -> str:
    held = f", {checked.tensors} tensors of {checked.parameters:,} numbers" if checked.tensors else ""
    sum_of = f"sha256 {checked.sha256}" + ("" if checked.compared else " (not known what it should be)")
    state = f"WRONG: {checked.fault}" if checked.fault else "ok"
    return f"{checked.path} ({checked.name}): {state}; {checked.size:,} bytes{held}; {sum_of}"


if __name__ == "__main__":
    sys.exit(main())
