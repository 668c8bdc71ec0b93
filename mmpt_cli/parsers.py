"""The parser of every command: options have one spelling, and with ``--json`` a usage error is a document too."""

import argparse
import json
import sys
from typing import Any, NoReturn

__all__ = ["Parser", "print_json_error"]

_WRONG_USAGE = 2


class Parser(argparse.ArgumentParser):
    """A parser that takes no shortened options: one that is added later must not change what a script says.

    Descriptions and examples are printed as they are written.

    Attributes:
        words: what was or is to be parsed, by this parser or one after it.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        ours = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(*given, **{**ours, **named})
        self.words: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as any parser does, and keep the words in mind for :meth:`error`."""
        self.words += sys.argv[1:] if args is None else args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print usage and message, with ``--json`` a document as well, and leave with exit code 2."""
        if "--json" in self.words:
            print_json_error(message, _WRONG_USAGE)
        super().error(message)


def print_json_error(message: str, code: int) -> None:
    """Print the one document of a command with ``--json`` that failed."""
    print(json.dumps({"error": message, "exit_code": code}), flush=True)
