"""Submit jobs to a Slurm cluster, each after those whose results it reads (``afterok``)."""

import shlex
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mmpt.launch.checkpoints import check_inputs
from mmpt.launch.commands import build_command, printable
from mmpt.launch.graph import dependencies
from mmpt.launch.jobs import wait_for
from mmpt.launch.layout import Machine
from mmpt.launch.local import Runner
from mmpt.launch.preparation import is_done, settle_aside
from mmpt.launch.project import Job
from mmpt.launch.slurm_job import SUBMITTED_FILE, ClusterJob
from mmpt.launch.slurm_options import SlurmOptions, gpus_of, minutes_of, slurm_layout, slurm_options
from mmpt.launch.slurm_queue import SlurmError, cancel, queued
from mmpt.launch.state import CONFIG_FILE, JobState, ProjectFailed, identities, locked, started_in
from mmpt.utils.config import save_config
from mmpt.utils.errors import MMPTError
from mmpt.utils.extras import require
from mmpt.utils.files import REPOSITORY
from mmpt.utils.signals import LEFT_EARLY

__all__ = ["SlurmRunner", "parameters_of"]

#: A first task that has saved and cannot queue the job again itself (containers have no scontrol) leaves with this.
_REQUEUE = f'code=$?; if [ "$code" = {LEFT_EARLY} ]; then scontrol requeue "$SLURM_JOB_ID"; fi; exit "$code"'


@dataclass
class SlurmRunner(Runner):
    """Submits the jobs of a project, or one, and returns at once.

    ``submitted`` maps the names of the jobs that it has submitted to Slurm's ids, ``waiting`` those too that were in
    the queue before.

    ``nodes`` and ``workers`` (GPUs per node) are those of the command line, if any. ``executor_of`` makes the
    submitit executor of a folder and the ``python`` of the nodes.
    """

    nodes: int | None = None
    submitted: dict[str, str] = field(default_factory=dict, init=False)
    waiting: dict[str, str] = field(default_factory=dict, init=False)
    done: ClassVar[str] = "submitted"
    or_else: ClassVar[str] = " or are in the queue already"
    executor_of: Callable[[Path, SlurmOptions], Any] = field(default_factory=lambda: _executor)

    def command(self, job: Job, overridden: bool = False) -> tuple[list[str], list[str]]:
        """Return the command of one worker of a job, and the batch script that has it run, as a note."""
        options = self.options(job)
        layout = slurm_layout(job, options, self.job_type)
        machine = Machine(gpus_of(job, options, self.job_type))
        built = build_command(job, job.run_dir / CONFIG_FILE, layout, machine)
        return built.argv, [*built.notes, f"{layout.workers} worker(s) on {layout.nodes} node(s)"]

    def options(self, job: Job) -> SlurmOptions:
        """Return what a job asks of the cluster."""
        return slurm_options(job, self.nodes, self.workers)

    def script(self, job: Job, after: Sequence[str] = ()) -> str:
        """Return the batch script of a job that waits for the jobs ``after`` (ids, or names in a dry run)."""
        slurm = require("submitit.slurm.slurm", "slurm")
        folder = _folder(job).absolute()
        python = self.options(job).python or shlex.quote(sys.executable)
        command = f"{python} -u -m submitit.core._submit {shlex.quote(str(folder))}"
        return slurm._make_sbatch_string(command=command, folder=folder, **self._parameters(job, after))

    def _parameters(self, job: Job, after: Sequence[str]) -> dict[str, Any]:
        options = self.options(job)
        layout = slurm_layout(job, options, self.job_type)
        return parameters_of(job, options, layout.workers // layout.nodes, gpus_of(job, options, self.job_type), after)

    def run_stages(self, stages: Sequence[Sequence[Job]], parallel: int = 1) -> int:
        """Submit all jobs; return how many were (the others were completed before, or are in the queue already)."""
        jobs = {job.name: job for stage in stages for job in stage}
        needs = dependencies(list(jobs.values()))
        try:
            for number, stage in enumerate(stages, 1):
                for job in stage:
                    after = [jobs[name] for name in sorted(needs[job.name])]
                    self.run(job, f"stage {number}/{len(stages)}", after)
        except KeyboardInterrupt:
            self.stop()
            raise
        return len(self.submitted)

    def stop(self) -> None:
        """Cancel what was submitted here."""
        for job_id in self.submitted.values():
            cancel(job_id)

    def run(self, job: Job, label: str = "", after: Sequence[Job] = (), overridden: bool = False) -> bool:
        """Submit one job unless it was completed, or is in the queue; tell whether it was submitted.

        Raises:
            SlurmError: if Slurm refuses it.
            ConfigError: if a training with other settings is in the folder, and ``force`` is not set.
            DataError: if a checkpoint it starts from is missing, and no job that was submitted writes it.
        """
        say = f"[{label}] {job.name}" if label else job.name
        ids = [self.waiting[other.name] for other in after if other.name in self.waiting]
        awaited = {other.writes for other in after if other.name in self.waiting}
        if job.reads is None or job.reads.parent not in awaited:
            check_inputs(job)
        self.command(job)  # an error here must leave the folder as it was
        with locked(job.run_dir):
            if self._is_queued(job, say):
                return False
            settle_aside(job, say, "the last run ended")
            state = JobState("pending", inputs=identities(job), workers=self._workers(job))
            state.after = {other.name: self._start_of(other) for other in after}
            if is_done(job, state, self.force, say):
                return False
            # Not config.yaml, by which the last run is known: Slurm may refuse the job.
            save_config(job.config, job.run_dir / SUBMITTED_FILE, f"The settings of {job.name}, resolved.")
            state.slurm_job = self._submit(job, after, ids)
            state.host, state.command = socket.gethostname(), self.command(job)[0]
            state.write(job.run_dir)
        self.submitted[job.name] = self.waiting[job.name] = state.slurm_job
        waits = f", after {', '.join(ids)}" if ids else ""
        print(f"{say}: submitted as job {state.slurm_job}{waits}\n  {printable(state.command)}", flush=True)
        return True

    def wait(self, jobs: Sequence[Job]) -> None:
        """Wait until jobs have ended; an interruption cancels those that were submitted here.

        Raises:
            ProjectFailed: if one is not completed.
        """
        try:
            views = wait_for(jobs)
        except KeyboardInterrupt:
            self.stop()
            raise
        failed = {
            view.job.name: MMPTError(f"{view.job.name}: {view.status} {view.note}\n{view.tail()}")
            for view in views
            if view.status in ("failed", "cancelled", "interrupted")
        }
        for error in failed.values():
            print(f"error: {error}", flush=True)
        if failed:
            raise ProjectFailed(failed, {view.job.name: ("others",) for view in views if view.status == "not run"})

    def _workers(self, job: Job) -> int:
        return slurm_layout(job, self.options(job), self.job_type).workers

    def _start_of(self, other: Job) -> str:
        """Return when a forerunner began; one that was just submitted will begin, so that no old start equals it."""
        return "submitted" if other.name in self.waiting else started_in(other.run_dir)

    def _is_queued(self, job: Job, say: str) -> bool:
        """Tell whether the job is in the queue already; its successors then wait for it."""
        state = JobState.read(job.run_dir)
        if state is None or not state.slurm_job or state.status == "completed":
            return False
        known = queued([state.slurm_job]).get(state.slurm_job)
        if known is None or known.over:
            return False
        self.waiting[job.name] = state.slurm_job
        print(f"{say}: is job {state.slurm_job} already ({known.state})", flush=True)
        return True

    def _submit(self, job: Job, after: Sequence[Job], ids: Sequence[str]) -> str:
        submitit = require("submitit", "slurm")
        options = self.options(job)
        force_flag = str(job.config.get("force_flag") or "") if self.force and job.kind == "script" else ""
        part = ClusterJob(
            job.name, str(job.path), job.kind, str(job.run_dir), gpus_of(job, options, self.job_type),
            {other.name: str(other.run_dir) for other in after}, force_flag,
            minutes_of(options.time) * 60 - options.signal_seconds,
        )  # fmt: skip
        executor = self.executor_of(_folder(job), options)
        executor.update_parameters(**self._parameters(job, ids))
        try:
            return str(executor.submit(part).job_id)
        except submitit.core.utils.FailedJobError as error:
            said = str(error).strip().splitlines()
            raise SlurmError(f"{job.name}: Slurm refuses the job: {said[-1] if said else error}") from error


def _folder(job: Job) -> Path:
    return job.run_dir / "slurm" / "%j"


def _executor(folder: Path, options: SlurmOptions) -> Any:
    submitit = require("submitit", "slurm")
    try:
        return submitit.SlurmExecutor(folder, max_num_timeout=options.max_requeues, python=options.python)
    except RuntimeError as error:
        raise SlurmError(f"this machine belongs to no Slurm cluster ({error}); --dryrun shows the scripts") from error


def parameters_of(
    job: Job, options: SlurmOptions, workers: int, gpus: int, after: Sequence[str] = ()
) -> dict[str, Any]:
    """Return submitit's parameters of a job with that many workers and GPUs per node, after the jobs of some ids."""
    cores = options.cpus_per_worker or 1 + _data_workers(job)
    srun = ["--kill-on-bad-exit=1", f"--cpus-per-task={cores}"]  # which srun no longer takes from sbatch
    if options.container_image:
        srun += [f"--container-image={options.container_image}", f"--container-workdir={Path.cwd()}"]
    srun += [f"--container-mounts={options.container_mounts}"] if options.container_mounts else []
    other = {"requeue": True, "chdir": str(Path.cwd()), "comment": f"mmpt {job.run_dir}", **options.options}
    other = {key: value for key, value in other.items() if value is not None and value is not False}
    if after:
        other |= {"dependency": "afterok:" + ":".join(after), "kill-on-invalid-dep": "yes"}
    parameters = {
        "job_name": Path(job.name).stem,
        "time": minutes_of(options.time),
        "nodes": options.nodes,
        "ntasks_per_node": workers,
        "cpus_per_task": cores,
        "gpus_per_node": gpus or None,
        "mem": f"{round(options.mem_gb * 1024)}M" if options.mem_gb else None,
        "signal_delay_s": options.signal_seconds,
        "stderr_to_stdout": True,
        "setup": [*options.setup, f"export PYTHONPATH={shlex.quote(str(REPOSITORY))}${{PYTHONPATH:+:$PYTHONPATH}}"],
        "teardown": [_REQUEUE],
        "srun_args": srun,
        "additional_parameters": other,
    }
    parameters |= {key: getattr(options, key) for key in ("partition", "account", "qos", "constraint", "exclude")}
    return {key: value for key, value in parameters.items() if value is not None}


def _data_workers(job: Job) -> int:
    groups = (job.config.get("fairseq") or {}).values()
    named = [group.get("num_workers") for group in groups if hasattr(group, "get")]
    return max([int(number) for number in named if isinstance(number, int)], default=0)
