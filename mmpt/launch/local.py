"""Run jobs on this machine: subprocesses with real exit codes, logs and state in the run folder."""

import datetime
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmpt.launch.commands import Machine, build_command, job_type_of, printable
from mmpt.launch.graph import dependencies
from mmpt.launch.project import Job
from mmpt.utils.config import fingerprint, save_config
from mmpt.utils.errors import DataError, MMPTError
from mmpt.utils.files import REPOSITORY, read_json, write_json

__all__ = ["JobFailed", "JobState", "Runner", "log_tail"]

logger = logging.getLogger(__name__)
STATE_FILE = "job.json"
LOG_FILE = "log.txt"


class JobFailed(MMPTError):
    """Report a job that ended with a non-zero exit code; carries the code and where the log is."""

    def __init__(self, job: Job, returncode: int) -> None:
        log = job.run_dir / LOG_FILE
        super().__init__(f"{job.name} failed with exit code {returncode}; its log is {log}\n{log_tail(log)}")
        self.returncode = returncode


@dataclass
class JobState:
    """What ``job.json`` in a run folder says: running, completed or failed, of which config and command."""

    status: str
    config: str
    command: list[str] = field(default_factory=list)
    returncode: int | None = None
    started: str = ""
    seconds: float = 0.0

    @classmethod
    def read(cls, run_dir: Path) -> "JobState | None":
        """Read the state of a run folder; None if it has none."""
        path = run_dir / STATE_FILE
        if not path.exists():
            return None
        content = read_json(path)
        try:
            return cls(**content)
        except TypeError as error:
            raise DataError(f"{path}: not a job state ({error}); delete it to run the job again") from error

    def write(self, run_dir: Path) -> None:
        """Write the state, atomically."""
        write_json(run_dir / STATE_FILE, asdict(self))


def log_tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log file, indented."""
    if not log.exists():
        return "    (no log)"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 64 * 1024))
        text = file.read().decode("utf-8", "replace").replace("\r", "\n")
    return "\n".join(f"    {line}" for line in [item for item in text.splitlines() if item.strip()][-lines:])


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
        """Return the argument list of a job and the notes on it; nothing is written."""
        built = build_command(job, self.config_path(job, overridden), job_type_of(job, self.job_type), self.machine)
        return built.argv, built.notes

    @staticmethod
    def config_path(job: Job, overridden: bool) -> Path:
        """Return the YAML that the job reads: its own, or with overrides the resolved one in its run folder."""
        return job.run_dir / "config.yaml" if overridden and job.kind != "script" else job.path

    def run_stages(self, stages: Sequence[Sequence[Job]], parallel: int = 1) -> int:
        """Run all jobs, stage by stage; return how many ran (the others were completed before).

        Raises:
            JobFailed: at the first job that fails; jobs after it do not start.
        """
        needs = dependencies([job for stage in stages for job in stage])
        ran: set[str] = set()
        for number, stage in enumerate(stages, 1):
            stale = {job.name for job in stage if needs[job.name] & ran}
            with ThreadPoolExecutor(max(1, min(parallel, len(stage)))) as pool:
                label = f"stage {number}/{len(stages)}"
                futures = [pool.submit(self.run, job, label=label, stale=job.name in stale) for job in stage]
                try:
                    ran |= {job.name for job, future in zip(stage, futures, strict=True) if future.result()}
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    self.stop()
                    raise
        return len(ran)

    def run(self, job: Job, label: str = "", stale: bool = False, overridden: bool = False) -> bool:
        """Run one job unless it was completed with this very config; tell whether it ran.

        ``stale``: a job it depends on has just run again, so an old result does not count.
        """
        say = f"[{label}] {job.name}" if label else job.name
        config = fingerprint(job.config)
        old = JobState.read(job.run_dir)
        completed = old is not None and old.status == "completed"
        if old is not None and completed and old.config == config and not self.force and not stale:
            print(f"{say}: completed before, skipped (--force redoes it)", flush=True)
            return False
        if completed or self.force:
            why = "--force" if self.force else "what it depends on ran again" if stale else "its settings changed"
            print(f"{say}: redone, {why}", flush=True)
            _clear(job)
        _check_inputs(job)
        argv, notes = self.command(job, overridden)
        print(f"{say}\n  {printable(argv)}", flush=True)
        for note in notes:
            print(f"  note: {note}", flush=True)
        job.run_dir.mkdir(parents=True, exist_ok=True)
        if job.kind != "script":
            save_config(job.config, job.run_dir / "config.yaml", f"The settings of {job.name}, resolved.")
        state = JobState("running", config, argv, started=datetime.datetime.now().isoformat(timespec="seconds"))
        state.write(job.run_dir)
        begin = time.monotonic()
        state.returncode = self._execute(argv, job.run_dir / LOG_FILE)
        state.seconds = round(time.monotonic() - begin, 1)
        state.status = "completed" if state.returncode == 0 else "failed"
        state.write(job.run_dir)
        if state.returncode != 0:
            raise JobFailed(job, state.returncode)
        print(f"{say}: done in {state.seconds:.0f} s, log in {job.run_dir / LOG_FILE}", flush=True)
        return True

    def _execute(self, argv: Sequence[str], log: Path) -> int:
        """Run a command with its output in ``log`` (appended) and on the console; return its exit code."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), environment.get("PYTHONPATH")]))
        with log.open("ab") as file:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
            )
            assert process.stdout is not None
            self._running.add(process)
            try:
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


def _check_inputs(job: Job) -> None:
    """Refuse to start a job whose starting checkpoint is missing: fairseq would only log a line."""
    if job.reads is not None and not job.reads.exists():
        raise DataError(f"{job.name}: the checkpoint it starts from does not exist: {job.reads}")


def _clear(job: Job) -> None:
    """Remove what an earlier run of the job would make the new one resume from."""
    patterns: dict[str, list[str]] = {
        "train": ["checkpoint*.pt", "retri/*", LOG_FILE],
        "predict": ["metrics.json", LOG_FILE],
        "script": [LOG_FILE],
    }
    for pattern in [*patterns[job.kind], STATE_FILE]:
        for path in job.run_dir.glob(pattern):
            path.unlink()


def metrics_of(job: Job) -> dict[str, Any] | None:
    """Return the saved metrics of a test job; None if it has not been run."""
    path = job.run_dir / "metrics.json"
    return read_json(path) if path.exists() else None
