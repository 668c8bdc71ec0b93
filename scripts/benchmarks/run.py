"""Measure works of MMPT against a naive way of doing the same on the same data, and print one table.

    python scripts/benchmarks/run.py                          # all works; 23 minutes on two idle cores
    python scripts/benchmarks/run.py --quick shard-reads      # one of them, small
    python scripts/benchmarks/run.py --list

Each way of a work runs in a fresh process; the two are compared first and then take turns for several rounds, three
where passes are long. "ratio" is the median of the rounds' ratios. "peak MiB" is the most memory that our process held
while it worked, its mapped files included, "(own)" what of that is beyond interpreter and imports; "reference MiB" is
that of the reference's process. "bound/s" is what the machine could do at most, by its own rates in the same run, if a
unit took nothing but the operations ("compute") that it needs or the bytes that it copies or reads; "share" is how much
of that we reach.

A run is appended to the history as one line of JSON. A ratio more than 20 % below the median of the last five runs
is reported.

Exit code: 0; 1 if a work crashed or its two ways disagree (the others still run); 2 for a wrong command line; 3 if a
promise was not kept (full sizes only); 4 if a ratio fell.
"""

import argparse
import datetime
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.utils.errors import DataError
from mmpt.utils.files import write_json
from scripts.benchmarks import history
from scripts.benchmarks.machine import describe
from scripts.benchmarks.measuring import Effort, Entry, Result, Session
from scripts.benchmarks.table import rates_table, results_table
from scripts.benchmarks.work import Work

__all__ = ["MODULES", "entries_of", "main", "run_module"]

#: Modules with works, in the order of the table.
MODULES = tuple(f"scripts.benchmarks.{path.stem}" for path in sorted(Path(__file__).parent.glob("bench_*.py")))
HISTORY = Path(__file__).resolve().parents[2] / ".benchmarks" / "history.jsonl"
_QUICK = {"rounds": 2, "seconds": 0.2}


def entries_of(modules: Sequence[str]) -> list[Entry]:
    """Return the works of modules; one that cannot be imported is named on standard error, and left out."""
    entries: list[Entry] = []
    for module in modules:
        try:
            entries += [Entry(module, work) for work in getattr(importlib.import_module(module), "WORKS", ())]
        except ImportError as error:
            print(f"{module}: left out, {error}", file=sys.stderr)
    names = [entry.work.name for entry in entries]
    assert len(names) == len(set(names)), "two works have one name"
    return entries


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "works", nargs="*", metavar="WORK", help="names of works, or the beginnings of names; default: all"
    )
    parser.add_argument("--all", action="store_true", help="also the works that else only run when they are named")
    parser.add_argument("--list", action="store_true", help="list the works, their sizes and references")
    parser.add_argument("--quick", action="store_true", help="small sizes, two short rounds; promises are not checked")
    parser.add_argument("--rounds", type=int, help="turns of each way, 3 where passes are long (default 5, quick 2)")
    parser.add_argument("--seconds", type=float, help="about how long a turn takes (default 1, quick 0.2)")
    parser.add_argument(
        "--clock", choices=("wall", "processor"), default="wall",
        help="seconds of the clock, or those that a process computed (steadier where others use the machine, and "
        "blind to waiting and to its own workers); default wall",
    )  # fmt: skip
    parser.add_argument("-o", "--option", action="append", default=[], metavar="SIZE=VALUE",
                        help="another size, for all works that have it: -o videos=64")  # fmt: skip
    parser.add_argument(
        "--history", metavar="FILE", default=str(HISTORY), help="where runs are kept (.benchmarks/history.jsonl)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write this run's record to a file")
    return parser


def _chosen(parser: argparse.ArgumentParser, entries: list[Entry], names: list[str], everything: bool) -> list[Entry]:
    for name in names:
        if not any(entry.work.name.startswith(name) for entry in entries):
            parser.error(f"no work is called {name!r}; --list says which there are")
    if names:
        return [entry for entry in entries if any(entry.work.name.startswith(name) for name in names)]
    plain = [entry for entry in entries if everything or entry.work.group != "more"]
    return plain or entries


def _changes(parser: argparse.ArgumentParser, entries: list[Entry], options: list[str]) -> dict[str, Any]:
    known = {key: value for entry in entries for key, value in entry.work.sizes.items()}
    changes = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or key not in known:
            parser.error(f"-o {option}: the sizes of these works are {', '.join(sorted(known)) or 'none'}")
        try:
            changes[key] = type(known[key])(value)
        except ValueError:
            parser.error(f"-o {option}: {key} is {type(known[key]).__name__}, as {known[key]!r}")
    return changes


def _list(entries: list[Entry]) -> None:
    for entry in entries:
        work: Work = entry.work
        sizes = ", ".join(f"{key}={value}" for key, value in work.sizes.items())
        print(f"{work.name:<28} {work.unit}; {work.naive or 'no reference'}")
        print(f"{'':<28} {entry.module.rsplit('.', 1)[-1]}.py, group {work.group}; {sizes}")


class _Progress:
    """Says on stderr which work is at what; one line that is written over where a person looks on."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.name, self.shown = total, 0, "", sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self.shown:
            print(f"\r\033[K[{self.done + 1}/{self.total}] {self.name}: {text}", end="", file=sys.stderr, flush=True)

    def end(self, result: Result) -> None:
        self.done += 1
        what = f"failed: {result.failed}" if result.failed else f"{result.ratio:.2f} times" if result.ratio else "done"
        start = "\r\033[K" if self.shown else ""
        print(f"{start}[{self.done}/{self.total}] {result.name}: {what}", file=sys.stderr, flush=True)


def main(
    arguments: Sequence[str] | None = None, modules: Sequence[str] = MODULES, description: str | None = __doc__
) -> int:
    """Run the command on the works of modules; return the exit code."""
    parser = _parser(description)
    options = parser.parse_args(arguments)
    entries = _chosen(parser, entries_of(modules), options.works, options.all or options.list)
    if options.list:
        _list(entries)
        return 0
    quick = _QUICK if options.quick else {}
    effort = Effort(
        options.rounds or quick.get("rounds", 5), options.seconds or quick.get("seconds", 1.0),
        options.quick, options.clock, _changes(parser, entries, options.option),
    )  # fmt: skip
    try:
        earlier = history.read(options.history)
    except DataError as error:
        parser.error(str(error))
    about = describe()
    if about["load_average"] > 0.5 and effort.clock == "wall":
        print(f"others use this machine (load {about['load_average']}): only ratios mean something", file=sys.stderr)
    progress = _Progress(len(entries))
    session, results = Session(effort, progress), []
    measured = iter(session.measure(entries))
    for entry in entries:
        progress.name = entry.work.name
        results.append(next(measured))
        progress.end(results[-1])
    record = about | {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": effort.quick, "clock": effort.clock, "rounds": effort.rounds,
        "rates": {str(threads): rates for threads, rates in session.rates.items()},
        "works": {result.name: result.record() for result in results},
    }  # fmt: skip
    code = _report(results, session, record, history.dropped(record, earlier))
    history.append(options.history, record)
    if options.json:
        write_json(options.json, record)
    return code


def _report(results: list[Result], session: Session, record: dict[str, Any], dropped: list[str]) -> int:
    print("\n".join(results_table(results)))
    if session.rates:
        print("\n" + "\n".join(rates_table(session.rates)))
    print(f"\n{record['cpu']}, {record['cores']} cores, {record['time']}, load {record['load_average']}")
    failed = [result for result in results if result.failed]
    for result in failed:
        print(f"\nFAILED {result.name}: {result.failed}\n{result.details}".rstrip())
    broken = [f"NOT KEPT {result.name}: {text}" for result in results for text in result.broken]
    for line in broken + [f"SLOWER {text}" for text in dropped]:
        print(line)
    return 1 if failed else 3 if broken else 4 if dropped else 0


def run_module(file: str, description: str | None, arguments: Sequence[str] | None = None) -> int:
    """Run the works of one module, from the end of its file."""
    more = "This measures the works of this file; `run.py --help` explains the table, and `run.py` measures all.\n"
    return main(arguments, [f"scripts.benchmarks.{Path(file).stem}"], f"{description}\n{more}")


if __name__ == "__main__":
    sys.exit(main())
