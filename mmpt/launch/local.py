"""Run jobs on this machine: subprocesses with real exit codes, logs and state in the run folder."""

import ctypes
import datetime
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from mmpt.launch.checkpoints import check_inputs, never_written
from mmpt.launch.commands import Machine, build_command, job_type_of, printable
from mmpt.launch.graph import dependencies
from mmpt.launch.project import Job
from mmpt.launch.replaced import set_aside, settle
from mmpt.launch.state import (
    CONFIG_FILE,
    LOG_FILE,
    STATE_FILE,
    JobFailed,
    JobState,
    ProjectFailed,
    changed_keys,
    identities,
    locked,
)
from mmpt.utils.config import save_config
from mmpt.utils.errors import ConfigError, MMPTError
from mmpt.utils.files import REPOSITORY

__all__ = ["Runner"]

#: What an earlier run leaves behind that a new one would go on from, or that would pass for its result.
_LEFTOVERS = {
    "train": ("checkpoint*.pt", "retri/*", LOG_FILE),
    "predict": ("metrics.json", LOG_FILE),
    "script": (LOG_FILE,),
}


@dataclass
class Runner:
    """Runs jobs in order.

    ``force`` runs completed jobs again, from the start. ``stream`` copies their output to the console.
    """

    job_type: str | None = None
    force: bool = False
    stream: bool = True
    machine: Machine = field(default_factory=Machine.here)
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set, init=False)

    def command(self, job: Job, overridden: bool = False) -> tuple[list[str], list[str]]:
        """Return the argument list of a job and the notes on it; nothing is written.

        With ``overridden`` the job reads its resolved settings from its run folder, else its own YAML.
        """
        config_path = job.run_dir / CONFIG_FILE if overridden and job.kind != "script" else job.path
        built = build_command(job, config_path, job_type_of(job, self.job_type), self.machine)
        if job.kind == "script" and self.force and job.config.get("force_flag"):
            built.argv.append(str(job.config.force_flag))
        return built.argv, built.notes

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
        argv, _ = self.command(job, overridden)  # an error here must leave the folder as it was
        with locked(job.run_dir) as lock:
            if settle(job.run_dir, LOG_FILE):
                print(f"{say}: the last run left no checkpoint; what it was to replace is back", flush=True)
            state = JobState("running", argv, inputs=identities(job))
            state.after = {other.name: _started(other) for other in after}
            old = JobState.read(job.run_dir)
            if old is not None:
                reason = self._why_again(job, old, state)
                if not reason and old.status == "completed":
                    print(f"{say}: completed before, skipped (--force redoes it)", flush=True)
                    return False
                if reason and not reason.startswith("extended"):
                    print(f"{say}: from the start, {reason}", flush=True)
                    _clear(job)
            state.command, notes = self.command(job, overridden)
            print(f"{say}\n  {printable(state.command)}", flush=True)
            for note in notes:
                print(f"  note: {note}", flush=True)
            try:
                self._run(job, state, lock)
            finally:
                if settle(job.run_dir, LOG_FILE):
                    print(f"{say}: ended without a checkpoint; what it was to replace is back", flush=True)
        print(f"{say}: done in {state.seconds:.0f} s, log in {job.run_dir / LOG_FILE}", flush=True)
        return True

    def _why_again(self, job: Job, old: JobState, new: JobState) -> str:
        """Say why what is in the folder does not count; "" if it does (or can be gone on from)."""
        if self.force:
            return "--force"
        late = [name for name, started in new.after.items() if old.after.get(name, started) != started]
        if late:
            return f"{', '.join(late)} ran again"
        if {path: old.inputs.get(path) for path in new.inputs} != new.inputs and old.inputs:
            return "what it reads has changed"
        matter, extending = changed_keys(job)
        if matter and job.kind == "train" and any(job.run_dir.glob("checkpoint*.pt")):
            raise ConfigError(
                f"{job.name}: {job.run_dir} holds a training with other settings ({', '.join(matter)})."
                " --force trains again from the start and replaces it; another project_dir or save_dir keeps it"
            )
        if matter:
            return f"other settings than before ({', '.join(matter)})"
        return f"extended ({', '.join(extending)})" if extending else ""

    def _run(self, job: Job, state: JobState, lock: int) -> None:
        if job.kind == "script":
            save_config(job.config, job.run_dir / CONFIG_FILE, f"The arguments of {job.name}.")
        else:
            save_config(job.config, job.run_dir / CONFIG_FILE, f"The settings of {job.name}, resolved.")
        log = job.run_dir / LOG_FILE
        log_start = log.stat().st_size if log.exists() else 0
        state.started = datetime.datetime.now().isoformat()

        def note_process(pid: int) -> None:
            state.pid = pid
            state.write(job.run_dir)

        begin = time.monotonic()
        state.returncode = self._execute(state.command, log, lock, note_process)
        state.seconds = round(time.monotonic() - begin, 1)
        if state.returncode == 0 and job.kind == "train" and not any(job.run_dir.glob("checkpoint*.pt")):
            with log.open("a", encoding="utf-8") as file:
                file.write(
                    "error: the training ended without a checkpoint: fairseq.checkpoint.save_interval, or"
                    " dataset.validate_interval, is larger than the number of epochs\n"
                )
            state.returncode = 1
        state.status, state.pid = "completed" if state.returncode == 0 else "failed", 0
        state.write(job.run_dir)
        if state.returncode != 0:
            raise JobFailed(job, state.returncode, log_start)

    def _execute(self, argv: Sequence[str], log: Path, lock: int, started: Callable[[int], None]) -> int:
        """Run a command with its output in ``log`` (appended) and on the console; return its exit code."""
        # Threads that spin while they wait take the cores from the data workers, and from everything else.
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), environment.get("PYTHONPATH")]))
        with log.open("ab") as file:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(lock,),
                preexec_fn=_die_with_parent,
            )
            assert process.stdout is not None
            self._running.add(process)
            try:
                started(process.pid)
                while chunk := os.read(process.stdout.fileno(), 65536):
                    file.write(chunk)
                    file.flush()
                    if self.stream:
                        sys.stdout.buffer.write(chunk)
                        sys.stdout.flush()
                return process.wait()
            except BaseException:
                self.stop()
                raise
            finally:
                self._running.discard(process)

    def stop(self) -> None:
        """End every job that is running: asked first, killed after ten seconds."""
        running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Ask the kernel (Linux) to end a job whose launcher is gone, however it went."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _started(job: Job) -> str:
    state = JobState.read(job.run_dir)
    return state.started if state else ""


def _clear(job: Job) -> None:
    """Remove what an earlier run of the job would make the new one resume from; a training's is only set aside."""
    if job.kind == "train" and any(job.run_dir.glob("checkpoint*.pt")):
        set_aside(job.run_dir, [*_LEFTOVERS[job.kind], STATE_FILE, CONFIG_FILE])
        return
    for pattern in [*_LEFTOVERS[job.kind], STATE_FILE]:
        for path in job.run_dir.glob(pattern):
            path.unlink()
