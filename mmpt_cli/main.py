"""The ``mmpt`` command: one name for all commands, each a module of this package with its own ``main``.

Only the module of the command that is asked for is imported, so that help is there at once.
"""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType

from mmpt.utils.allocator import keep_freed_memory
from mmpt_cli.closed_pipes import quiet_when_closed
from mmpt_cli.parsers import print_json_error

__all__ = ["COMMANDS", "GROUPS", "Command", "available", "main", "module_of", "own_module"]


@dataclass(frozen=True)
class Command:
    """A command: the module of this package that has its ``main`` and ``build_parser``, its group, and one line on it.

    The line is here, not in the module: a command whose optional packages are missing is listed too.
    """

    module: str
    group: str
    summary: str


GROUPS = {
    "videos": "A model on your own videos",
    "search": "Search",
    "train": "Data, training, results",
    "files": "Weights and files of models",
    "help": "Installation and help",
}

COMMANDS = {
    "classify": Command("classify", "videos", "rank labels for videos"),
    "segment": Command("segment", "videos", "find out what happens when: labels over the seconds of videos"),
    "caption": Command("caption", "videos", "write captions of videos"),
    "answer": Command("answer", "videos", "answer a question about a video, freely or among options"),
    "app": Command("app", "videos", "all of these in a web page of your own machine"),
    "index": Command("index", "search", "index a folder of videos by clips"),
    "search": Command("search", "search", "find clips of an index by text, by a clip or by a picture"),
    "extract": Command("extract", "train", "features, frames or segments of many videos, for training and tests"),
    "launch": Command("launch", "train", "run the jobs of a project, here or on Slurm"),
    "jobs": Command("jobs", "train", "list the jobs of a project: state, progress; cancel them"),
    "results": Command("results", "train", "print the table of a project's test results"),
    "report": Command("report", "train", "write a page about a project's runs"),
    "figures": Command("figures", "train", "draw training curves, score timelines and similarities"),
    "predict": Command("predict", "train", "evaluate the checkpoint of a test on its test set"),
    "average": Command("average", "files", "average the weights of several checkpoints"),
    "convert": Command("convert", "files", "convert published checkpoints to safetensors"),
    "weights": Command("weights", "files", "list the published files that a system can use; verify, fetch them"),
    "capabilities": Command("capabilities", "files", "tell which system, or which model, answers which call"),
    "doctor": Command("doctor", "help", "check the installation; says how to mend what is wrong"),
}

_EXAMPLES = """\
examples:
  mmpt doctor
  mmpt classify party.mp4 --labels "a dance" "a cake" --model runs/demo/vtt
  mmpt index my_videos/ --output my_index --model runs/demo/vtt
  mmpt search my_index "someone cuts a cake"
  mmpt launch projects/demo.yaml

mmpt help COMMAND (or mmpt COMMAND --help) tells what a command takes.
"""


def available() -> dict[str, Command]:
    """Return the commands whose modules are there."""
    return {name: command for name, command in COMMANDS.items() if find_spec(f"mmpt_cli.{command.module}")}


def module_of(name: str) -> ModuleType:
    """Import and return the module of a command."""
    return own_module(COMMANDS[name].module)


def own_module(name: str) -> ModuleType:
    """Import and return a module of this package; the names are those of tables, no user's words."""
    return importlib.import_module(f"mmpt_cli.{name}")


@quiet_when_closed
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        print(_overview(), file=sys.stderr)
        return 2
    name, *rest = given
    if name in ("-V", "--version"):
        return _version()
    if name in ("-h", "--help", "help"):
        if name != "help" or not rest or rest[0] == "help":
            print(_overview())
            return 0
        if rest[0] == "--markdown":
            return _markdown()
        name, rest = rest[0], ["--help"]
    if name not in available():
        return _unknown(name, "--json" in rest)
    if name != "app":  # a page that is open for days gives back what it does not use
        keep_freed_memory()
    return int(module_of(name).main(rest) or 0)


def _overview() -> str:
    there = available()
    width = max(map(len, there))
    lines = ["usage: mmpt COMMAND ...", "", "Train and use video-language models.", ""]
    for group, title in GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {name:<{width}}  {command.summary}" for name, command in there.items() if command.group == group]
        lines += [f"  {'help':<{width}}  this, or mmpt help COMMAND", ""] if group == "help" else [""]
    return "\n".join([*lines, _EXAMPLES.rstrip()])


def _version() -> int:
    import mmpt

    print(f"mmpt {mmpt.__version__}")
    return 0


def _markdown() -> int:
    from mmpt_cli.command_page import command_page

    print(command_page(), end="")
    return 0


def _unknown(name: str, as_json: bool) -> int:
    from mmpt.utils.errors import nearest

    what = "option" if name.startswith("-") else "command"
    message = f"there is no {what} {name!r}.{nearest(name, available())} mmpt --help lists them."
    print(f"error: {message}", file=sys.stderr)
    if as_json:
        print_json_error(message, 2)
    return 2


if __name__ == "__main__":
    sys.exit(main())
