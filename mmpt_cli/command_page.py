"""The page of all commands, docs/command_line.md, made from their parsers."""

import argparse
import os

from mmpt_cli.main import GROUPS, available, module_of

__all__ = ["command_page"]

_HEAD = """\
# Commands

<!-- made by `make docs-pages` -->

Every command is a word after `mmpt`, and a module too: `python -m mmpt_cli.classify` is `mmpt classify`. With `--json`
a command prints one JSON document on standard output and nothing else there; where it fails, the document is
`{"error": "..", "exit_code": 2}`, and the message is on standard error as well. One that is interrupted (exit code 130)
may print none. Exit codes are 0 where all is done and 2 where the message says what is wrong; each command tells the
others. Options are written out: `--out` is not `--output`.
"""


def command_page() -> str:
    """Return the page in Markdown."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "110"  # the width that argparse writes help for
    try:
        return _page()
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _page() -> str:
    parts = [_HEAD]
    for group, title in GROUPS.items():
        there = [(name, command) for name, command in available().items() if command.group == group]
        if there:
            parts.append(f"## {title}\n")
        for name, command in there:
            parts.append(f"### mmpt {name}\n\n{command.summary[0].upper()}{command.summary[1:]}.\n")
            parts.append(_help(module_of(name).build_parser()))
    return "\n".join(parts)


def _help(parser: argparse.ArgumentParser) -> str:
    lines = (line.rstrip() for line in parser.format_help().rstrip().splitlines())
    return "```text\n" + "\n".join(lines) + "\n```\n"
