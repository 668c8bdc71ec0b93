"""What the commands about results share: run folders, their arguments, and how errors become exit codes."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmpt.utils.errors import DataError, MMPTError
from mmpt_cli.closed_pipes import quiet_when_closed
from mmpt_cli.parsers import print_json_error

__all__ = ["EXIT_CODES", "RunFolders", "add_folder_arguments", "exit_code", "folders_of"]

EXIT_CODES = "Exit codes: 0 done, 1 nothing was evaluated, 2 the message says what is wrong, 130 interrupted."


@dataclass(frozen=True)
class RunFolders:
    """Folders of tests and of trainings; ``names`` gives the job name of a folder where it is known."""

    tests: list[Path]
    trainings: list[Path]
    names: Mapping[str, str] = field(default_factory=dict)


@quiet_when_closed
def exit_code(command: Callable[[], int], resumes: bool = False, as_json: bool = False) -> int:
    """Run a command and return its exit code; an error that a user can put right becomes one line.

    Args:
        command: prints what it has to say, with ``as_json`` at its very end.
        resumes: the same command goes on where an interrupted one stopped.
        as_json: an error is also printed as the one document on standard output, ``{"error", "exit_code"}``.
    """

    def failed(message: str, code: int) -> int:
        print(f"error: {message}", file=sys.stderr)
        if as_json:
            print_json_error(message, code)
        return code

    try:
        return command()
    except BrokenPipeError:
        raise
    except MMPTError as error:
        from mmpt.evaluators.base import NothingEvaluated
        from mmpt.store.transcripts import TooManyFailuresError

        return failed(str(error), 1 if isinstance(error, NothingEvaluated | TooManyFailuresError) else 2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return failed(f"{place}{error.strerror or error}", 2)
    except KeyboardInterrupt:
        print("interrupted" + "; the same command goes on from here" * resumes, file=sys.stderr)
        return 130


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which run folders: a project YAML with overrides, or ``--runs``."""
    parser.add_argument("project", nargs="?", help="project YAML")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE", help="set a config key")
    parser.add_argument("--runs", nargs="+", default=[], metavar="DIR", help="run folders, in place of a project")


def folders_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> RunFolders:
    """Return the run folders of a project's jobs, or those below ``--runs``; exits if not just one is given.

    Raises:
        ConfigError: if the project file is wrong.
        DataError: if a folder of ``--runs`` does not exist.
    """
    if bool(options.project) == bool(options.runs):
        parser.error("give a project YAML, or run folders with --runs")
    if options.runs:
        return _below(options.runs)
    from mmpt.launch.project import expand_project

    jobs = expand_project(options.project, options.override).jobs
    names = {str(job.run_dir): Path(job.name).stem for job in jobs}
    tests = [job.run_dir for job in jobs if job.kind == "predict"]
    return RunFolders(tests, [job.run_dir for job in jobs if job.kind == "train"], names)


def _modified(file: Path) -> float:
    return file.stat().st_mtime


def _below(runs: Sequence[str]) -> RunFolders:
    for run in runs:
        if not Path(run).is_dir():
            raise DataError(f"--runs: there is no folder {run}")
    logs = [log.parent for run in runs for log in sorted(Path(run).rglob("log.txt"), key=_modified)]
    trainings = [folder for folder in logs if not (folder / "metrics.json").exists()]
    return RunFolders([Path(run) for run in runs], trainings)
