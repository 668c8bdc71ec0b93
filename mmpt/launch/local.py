"""Run jobs on this machine: subprocesses with real exit codes, logs and state in the run folder."""

import os
import socket
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from mmpt.launch.checkpoints import check_inputs, never_written
from mmpt.launch.commands import Command, build_command, printable
from mmpt.launch.graph import dependencies
from mmpt.launch.layout import Layout, Machine, job_type_of, local_layout, on_slurm
from mmpt.launch.preparation import begin, conclude, is_done, settle_aside
from mmpt.launch.processes import Processes, job_environment
from mmpt.launch.project import Job
from mmpt.launch.state import CONFIG_FILE, LOG_FILE, JobFailed, JobState, ProjectFailed, identities, locked, started_in
from mmpt.utils.errors import ConfigError, MMPTError

__all__ = ["Runner"]


@dataclass
class Runner:
    """Runs jobs in order.

    ``force`` runs completed jobs again, from the start. ``stream`` copies their output to the console. ``workers``
    is the number that was asked for, if any.
    """

    job_type: str | None = None
    force: bool = False
    stream: bool = True
    machine: Machine = field(default_factory=Machine.here)
    workers: int | None = None
    processes: Processes = field(default_factory=Processes, init=False)
    #: What it has done to jobs, for messages.
    done: ClassVar[str] = "ran"
    or_else: ClassVar[str] = ""

    def command(self, job: Job, overridden: bool = False) -> tuple[list[str], list[str]]:
        """Return the argument list of a job and the notes on it; nothing is written.

        With ``overridden`` the job reads its resolved settings from its run folder, else its own YAML.
        """
        built = self._command(job, overridden, self.layout(job))
        return built.argv, built.notes

    def layout(self, job: Job) -> Layout:
        """Return how many workers a job has here."""
        job_type = job_type_of(job, self.job_type)
        if on_slurm(job_type):
            raise ConfigError(f"{job.path}: {job_type} is a job of a cluster: submit it with locallaunch.py")
        if job.kind == "script":
            return Layout()
        return local_layout(job_type, self.machine, self.workers, self.job_type is not None)

    def _command(self, job: Job, overridden: bool, layout: Layout) -> Command:
        config_path = job.run_dir / CONFIG_FILE if overridden and job.kind != "script" else job.path
        built = build_command(job, config_path, layout, self.machine)
        if job.kind == "script" and self.force and job.config.get("force_flag"):
            built.argv.append(str(job.config.force_flag))
        return built

    def check(self, stages: Sequence[Sequence[Job]]) -> None:
        """Find what would stop a project later: wrong flags, and checkpoints that no job of it will write.

        Raises:
            ConfigError: naming the job's file and key.
            DataError: naming the missing checkpoint.
        """
        written: set[Path] = set()
        lines = self.missing(stages)
        if lines:
            raise ConfigError("\n".join(lines))
        for stage in stages:
            for job in stage:
                self.command(job)
                if job.reads is not None and job.reads.parent not in written:
                    check_inputs(job)
            written |= {job.writes for job in stage if job.writes is not None}

    def missing(self, stages: Sequence[Sequence[Job]]) -> list[str]:
        """Return a line for each job that starts from a checkpoint that the training it names will not leave."""
        return never_written([job for stage in stages for job in stage], self.force)

    def run_stages(self, stages: Sequence[Sequence[Job]], parallel: int = 1) -> int:
        """Run all jobs, stage by stage; return how many ran (the others were completed before).

        Raises:
            ProjectFailed: at the end, if jobs failed; those that wait for one of them did not start.
        """
        jobs = {job.name: job for stage in stages for job in stage}
        needs = dependencies(list(jobs.values()))
        ran = 0
        failed: dict[str, MMPTError] = {}
        left_out: dict[str, list[str]] = {}
        for number, stage in enumerate(stages, 1):
            label = f"stage {number}/{len(stages)}"
            for job in stage:
                causes = sorted(needs[job.name] & (failed.keys() | left_out.keys()))
                if causes:
                    left_out[job.name] = causes
                    print(f"[{label}] {job.name}: left out, it waits for {', '.join(causes)}", flush=True)
            with ThreadPoolExecutor(max(1, min(parallel, len(stage)))) as pool:
                futures = {
                    job.name: pool.submit(self.run, job, label, [jobs[name] for name in sorted(needs[job.name])])
                    for job in stage
                    if job.name not in left_out
                }
                try:
                    for name, future in futures.items():
                        try:
                            ran += future.result()
                        except MMPTError as error:
                            failed[name] = error
                            print(f"error: {error}", file=sys.stderr, flush=True)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    self.stop()
                    raise
        if failed:
            raise ProjectFailed(failed, left_out)
        return ran

    def run(self, job: Job, label: str = "", after: Sequence[Job] = (), overridden: bool = False) -> bool:
        """Run one job unless it was completed with these settings, inputs and forerunners; tell whether it ran.

        Raises:
            JobFailed: if it ends with another exit code than 0, or a training leaves no checkpoint.
            ConfigError: if a training with other settings is in the folder, and ``force`` is not set.
            DataError: if a checkpoint it starts from is missing, or another process runs the job.
        """
        say = f"[{label}] {job.name}" if label else job.name
        check_inputs(job)
        layout = self.layout(job)
        self._command(job, overridden, layout)  # an error here must leave the folder as it was
        with locked(job.run_dir) as lock:
            settle_aside(job, say, "the last run ended")
            state = JobState("running", inputs=identities(job), workers=layout.workers)
            state.after = {other.name: started_in(other.run_dir) for other in after}
            if is_done(job, state, self.force, say):
                return False
            built = self._command(job, overridden, layout)
            print(f"{say}\n  {printable(built.argv)}", flush=True)
            for note in built.notes:
                print(f"  note: {note}", flush=True)
            state.command = built.argv
            try:
                self._run(job, state, lock)
            finally:
                settle_aside(job, say, "ended")
        print(f"{say}: done in {state.seconds:.0f} s, log in {job.run_dir / LOG_FILE}", flush=True)
        return True

    def _run(self, job: Job, state: JobState, lock: int) -> None:
        log_start = begin(job, state)
        state.host, state.launcher = socket.gethostname(), os.getpid()

        def note_process(pid: int) -> None:
            state.pid = pid
            state.write(job.run_dir)

        started = time.monotonic()
        try:
            state.returncode = self.processes.run(
                state.command,
                job_environment(state.workers, self.machine.gpus),
                job.run_dir / LOG_FILE,
                self.stream,
                keep=(lock,),
                started=note_process,
            )
        except BaseException:
            conclude(job, state, stopped=True)
            raise
        state.seconds = round(time.monotonic() - started, 1)
        state.processor_seconds = round(self.processes.processor_seconds.pop(state.pid, 0.0), 1)
        conclude(job, state, self.processes.stopped)
        if state.returncode != 0:
            raise JobFailed(job, state.returncode, log_start)

    def script(self, job: Job, after: Sequence[str] = ()) -> str:
        """Return the batch script of a job; "" where jobs need none."""
        return ""

    def stop(self) -> None:
        """End every job that is running: asked first, killed after ten seconds."""
        self.processes.stop()
