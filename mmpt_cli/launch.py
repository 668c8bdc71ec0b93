"""Command line of the launcher: ``python locallaunch.py`` and ``python -m mmpt_cli.launch``."""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from mmpt.launch.commands import JOB_TYPES, printable
from mmpt.launch.graph import stages
from mmpt.launch.local import Runner
from mmpt.launch.project import Job, Project, expand_project, is_project, job_from_yaml, write_jobs
from mmpt.launch.state import JobFailed, ProjectFailed
from mmpt.utils.config import read_yaml
from mmpt.utils.errors import MMPTError

__all__ = ["main"]

EXAMPLES = """examples:
  python locallaunch.py projects/demo.yaml                       run every job of a project
  python locallaunch.py projects/retri/videoclip.yaml --dryrun   only write the job YAMLs and print the commands
  python locallaunch.py projects/retri/videoclip/how2.yaml --jobtype local_big
  python locallaunch.py projects/demo.yaml -o fairseq.optimization.max_epoch=2
  python locallaunch.py projects/demo.yaml -o task_group.pretrain.fairseq.common.seed=2
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="locallaunch.py",
        description="Run the jobs of a project YAML, in the order of their dependencies, or one job's YAML.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("yamls", help="project or job YAML; several are separated by commas and run one after another")
    parser.add_argument(
        "--dryrun", action="store_true", help="write the YAML of every job and print its command, no more"
    )
    parser.add_argument(
        "--jobtype", help=f"how training jobs run: {', '.join(JOB_TYPES)} (default: the YAML's task_type)"
    )
    parser.add_argument("--force", action="store_true", help="run completed jobs again, from the start")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="run up to N jobs of a stage at once")
    parser.add_argument("--quiet", action="store_true", help="keep the jobs' output in their log files only")
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="KEY.SUB=VALUE",
        help="set a key of every job, or with task_group.<group>.… of one group; may be repeated",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the launcher; return the exit code (of the first job that failed, if one did)."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    runner = Runner(arguments.jobtype, arguments.force, not arguments.quiet)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        for path in arguments.yamls.split(","):
            if is_project(read_yaml(path)):
                _launch_project(expand_project(path, arguments.override), runner, arguments)
            else:
                _launch_job(job_from_yaml(path, arguments.override), runner, arguments)
    except (JobFailed, ProjectFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.returncode if error.returncode > 0 else 128 - error.returncode
    except MMPTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _launch_project(project: Project, runner: Runner, arguments: argparse.Namespace) -> None:
    for correction in project.corrections:
        print(f"corrected: {correction}")
    write_jobs(project)
    order = stages(project)
    if arguments.dryrun:
        for number, stage in enumerate(order, 1):
            print(f"stage {number}/{len(order)}")
            for job in stage:
                _print_command(job, runner, overridden=False)
        for line in runner.missing(order):
            print(f"note: {line}")
        return
    runner.check(order)
    ran = runner.run_stages(order, arguments.parallel)
    jobs = [job for stage in order for job in stage]
    print(f"\n{ran} jobs ran, {len(jobs) - ran} were completed before.")
    _print_table(jobs)


def _launch_job(job: Job, runner: Runner, arguments: argparse.Namespace) -> None:
    overridden = bool(arguments.override)
    if arguments.dryrun:
        _print_command(job, runner, overridden)
        if overridden and job.kind != "script":
            print(f"    note: the run writes the resolved settings to {job.run_dir}/config.yaml first")
        return
    runner.run(job, overridden=overridden)
    _print_table([job])


def _print_command(job: Job, runner: Runner, overridden: bool) -> None:
    argv, notes = runner.command(job, overridden)
    print(f"  {printable(argv)}")
    for note in notes:
        print(f"    note: {note}")


def _print_table(jobs: Sequence[Job]) -> None:
    from mmpt.evaluators.results import collect_results, results_table

    tests = {str(job.run_dir): job.name.removesuffix(".yaml") for job in jobs if job.kind == "predict"}
    if tests:
        results, missing = collect_results(tests, names=tests)
        print(results_table(results, missing))


if __name__ == "__main__":
    sys.exit(main())
