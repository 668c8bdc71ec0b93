"""The public names of the published launcher, thin over :mod:`mmpt.launch`."""

from mmpt.launch.commands import printable
from mmpt.launch.jobs import look_at
from mmpt.launch.local import Runner
from mmpt.launch.project import Job, job_from_yaml
from mmpt.launch.state import JobFailed

__all__ = ["JobStatus", "LocalJob"]


class JobStatus:
    """The state of a submitted job, read from its run folder."""

    def __init__(self, job: Job) -> None:
        self._job = job

    @property
    def status(self) -> str:
        """``"completed"``, ``"failed"``, ``"cancelled"``, ``"running"`` …, or ``"unknown"`` before the first run."""
        status = look_at([self._job])[0].status
        return "unknown" if status == "not run" else status

    def done(self) -> bool:
        """Tell whether the job has ended, well or not."""
        return self.status not in ("unknown", "pending", "requeued", "running")

    def running(self) -> bool:
        """Tell whether the job has started and not ended."""
        return self.status == "running"


class LocalJob:
    """One job on this machine: ``LocalJob("projects/retri/videoclip/how2.yaml", "local_single").submit()``."""

    def __init__(self, yaml_file: str, job_type: str | None = None, dryrun: bool = False) -> None:
        self.job = job_from_yaml(yaml_file)
        self.dryrun = dryrun
        self._runner = Runner(job_type)

    def submit(self) -> JobStatus:
        """Run the job to its end (or print its command under ``dryrun``) and return its status."""
        if self.dryrun:
            print(printable(self._runner.command(self.job)[0]))
        else:
            try:
                self._runner.run(self.job)
            except JobFailed as error:
                print(f"error: {error}")
        return JobStatus(self.job)
