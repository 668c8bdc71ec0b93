"""Command line of the launcher: ``python locallaunch.py`` and ``python -m mmpt_cli.launch``."""

import argparse
import contextlib
import json
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

from mmpt.launch.commands import printable
from mmpt.launch.graph import dependencies, stages
from mmpt.launch.layout import JOB_TYPES, Machine, job_type_of, on_slurm
from mmpt.launch.local import Runner
from mmpt.launch.project import Job, Project, expand_project, is_project, job_from_yaml, jobs_of, write_jobs
from mmpt.launch.state import JobFailed, ProjectFailed
from mmpt.utils.config import read_yaml
from mmpt.utils.errors import ConfigError
from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import exit_code

__all__ = ["build_parser", "main"]

EXAMPLES = """examples:
  mmpt launch projects/demo.yaml                       # run every job of a project
  mmpt launch projects/retri/videoclip.yaml --dryrun   # only write the job YAMLs and print the commands
  mmpt launch projects/retri/videoclip/how2.yaml --jobtype local_big
  mmpt launch projects/demo.yaml -o fairseq.optimization.max_epoch=2
  mmpt launch projects/demo.yaml -o task_group.pretrain.fairseq.common.seed=2
  mmpt launch projects/retri/videoclip.yaml --jobtype slurm_big --nodes 4 -o slurm.partition=gpu
  mmpt launch projects/retri/videoclip.yaml --cancel

python locallaunch.py is the same. mmpt jobs PROJECT lists the jobs of a project as they stand.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = Parser(
        prog="mmpt launch",
        description="Run the jobs of a project YAML, in the order of their dependencies, or one job's YAML.",
        epilog=EXAMPLES,
    )
    parser.add_argument("yamls", help="project or job YAML; several are separated by commas and run one after another")
    parser.add_argument(
        "--dryrun", action="store_true", help="write the YAML of every job and print its command, no more"
    )
    parser.add_argument(
        "--jobtype", help=f"how training jobs run: {', '.join(JOB_TYPES)} (default: the YAML's task_type)"
    )
    parser.add_argument("--nodes", type=_count, metavar="N", help="nodes of each job on Slurm (default: slurm.nodes)")
    parser.add_argument(
        "--gpus-per-node",
        type=int,
        metavar="N",
        help="workers of each training and test on a node, whatever the job type says; without GPUs, on its cores; "
        "0: on the cores although there are GPUs",
    )
    parser.add_argument(
        "--wait", action="store_true", help="on Slurm: wait until all jobs have ended, then show results"
    )
    parser.add_argument("--cancel", action="store_true", help="end the jobs that run or wait, here or on Slurm")
    parser.add_argument("--force", action="store_true", help="run completed jobs again, from the start")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="run up to N jobs of a stage at once")
    parser.add_argument("--json", action="store_true", help="print the plan (--dryrun) or the final states as JSON")
    parser.add_argument("--quiet", action="store_true", help="keep the jobs' output in their log files only")
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="KEY.SUB=VALUE",
        help="set a key of every job, or with task_group.<group>.… of one group; may be repeated",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the launcher; return the exit code (of the first job that failed, if one did)."""
    arguments = build_parser().parse_args(argv)
    return exit_code(lambda: _run(arguments), resumes=True, as_json=arguments.json)


def _run(arguments: argparse.Namespace) -> int:
    if not arguments.json:
        return _outcome(arguments)
    with contextlib.redirect_stdout(sys.stderr):  # what is told on the way
        code = _outcome(arguments)
    return _print_json(arguments, code)


def _outcome(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup
            signal.signal(number, _interrupt)
    try:
        for path in arguments.yamls.split(","):
            if arguments.cancel:
                _cancel(path, arguments)
            elif is_project(read_yaml(path)):
                _launch_project(expand_project(path, arguments.override), arguments)
            else:
                _launch_job(job_from_yaml(path, arguments.override), arguments)
    except (JobFailed, ProjectFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.returncode if error.returncode > 0 else 128 - error.returncode
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _runner(jobs: Sequence[Job], arguments: argparse.Namespace) -> Runner:
    """Return what runs these jobs: Slurm, if the job type asked for or that of any of them says so."""
    asked, stream = arguments.jobtype, not arguments.quiet
    if arguments.gpus_per_node is not None and arguments.gpus_per_node < 0:
        raise ConfigError(f"--gpus-per-node {arguments.gpus_per_node}: must be 0 or more")
    if any(on_slurm(job_type_of(job, asked)) for job in jobs):
        from mmpt.launch.slurm import SlurmRunner

        return SlurmRunner(asked, arguments.force, stream, workers=arguments.gpus_per_node, nodes=arguments.nodes)
    if arguments.nodes not in (None, 1):
        raise ConfigError(f"--nodes {arguments.nodes}: several nodes need a Slurm job type, such as slurm_big")
    if arguments.gpus_per_node == 0:
        return Runner(asked, arguments.force, stream, machine=Machine(0))
    return Runner(asked, arguments.force, stream, workers=arguments.gpus_per_node)


def _launch_project(project: Project, arguments: argparse.Namespace) -> None:
    for correction in project.corrections:
        print(f"corrected: {correction}")
    runner = _runner(project.jobs, arguments)
    write_jobs(project)
    order = stages(project)
    jobs = [job for stage in order for job in stage]
    if arguments.dryrun:
        needs = dependencies(jobs)
        for number, stage in enumerate(order, 1):
            print(f"stage {number}/{len(order)}")
            for job in stage:
                _print_command(job, runner, False, sorted(needs[job.name]))
        for line in runner.missing(order):
            print(f"note: {line}")
        return
    runner.check(order)
    ran = runner.run_stages(order, arguments.parallel)
    print(f"\n{ran} jobs {runner.done}, {len(jobs) - ran} were completed before{runner.or_else}.")
    _finish(jobs, runner, arguments)


def _launch_job(job: Job, arguments: argparse.Namespace) -> None:
    runner = _runner([job], arguments)
    overridden = bool(arguments.override)
    if arguments.dryrun:
        _print_command(job, runner, overridden)
        for note in _settings_note(job, overridden):
            print(f"    note: {note}")
        return
    runner.run(job, overridden=overridden)
    _finish([job], runner, arguments)


def _finish(jobs: Sequence[Job], runner: Runner, arguments: argparse.Namespace) -> None:
    """Show the results; of jobs that were only submitted, wait for them first if asked to, else say how to look."""
    from mmpt.launch.slurm import SlurmRunner

    if isinstance(runner, SlurmRunner):
        if not arguments.wait:
            print(f"How they stand: python -m mmpt_cli.jobs {arguments.yamls}")
            return
        runner.wait(jobs)
    _print_table(jobs)


def _print_json(arguments: argparse.Namespace, code: int) -> int:
    """Print the commands of all jobs, or how the jobs stand now; return the exit code."""
    from mmpt.launch.jobs import look_at

    plans = {path: jobs_of(path, arguments.override) for path in arguments.yamls.split(",")}
    jobs = [job for found in plans.values() for job in found]
    if arguments.dryrun:
        document = {"jobs": [plan for path, found in plans.items() for plan in _plans(path, found, arguments)]}
    else:
        document = {"jobs": [view.as_dict() for view in look_at(jobs)]}
    print(json.dumps({**document, "exit_code": code}, indent=2))
    return code


def _plans(path: str, jobs: Sequence[Job], arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield the plan of each job of a file: its command, what it waits for, and what is to be known about it."""
    overridden = bool(arguments.override) and not is_project(read_yaml(path))
    runner, needs = _runner(jobs, arguments), dependencies(jobs)
    for job in jobs:
        command, notes = runner.command(job, overridden)
        where = {"run_dir": str(job.run_dir), "after": sorted(needs[job.name])}
        notes = [*notes, *_settings_note(job, overridden)]
        yield {"job": job.name, "kind": job.kind, **where, "command": list(command), "notes": notes}


def _settings_note(job: Job, overridden: bool) -> list[str]:
    """Return what a run of a job with overrides of its own does first."""
    if not overridden or job.kind == "script":
        return []
    return [f"the run writes the resolved settings to {job.run_dir}/config.yaml first"]


def _cancel(path: str, arguments: argparse.Namespace) -> None:
    from mmpt.launch.jobs import cancel_jobs, look_at

    lines = cancel_jobs(look_at(jobs_of(path, arguments.override)))
    print("\n".join(lines) or f"{path}: nothing runs or waits")


def _print_command(job: Job, runner: Runner, overridden: bool, after: Sequence[str] = ()) -> None:
    argv, notes = runner.command(job, overridden)
    print(f"  {printable(argv)}")
    for note in notes:
        print(f"    note: {note}")
    for line in runner.script(job, after).splitlines():
        print(f"    | {line}")


def _print_table(jobs: Sequence[Job]) -> None:
    from mmpt.evaluators.results import collect_results, results_table

    tests = {str(job.run_dir): job.name.removesuffix(".yaml") for job in jobs if job.kind == "predict"}
    if tests:
        results, missing = collect_results(tests, names=tests)
        print(results_table(results, missing))


if __name__ == "__main__":
    sys.exit(main())
