"""One concrete piece of work of a project."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mmpt.utils.weight_files import checkpoint_file

__all__ = ["Job", "move_runs"]


@dataclass
class Job:
    """One concrete piece of work: a training, a test, or a script of data preparation.

    ``path`` is the job's own YAML, ``run_dir`` the folder of its log and state, ``task`` the YAML that ``task_list``
    names, by default ``name``; ``seed`` is set where the project repeats it for several (``seeds``).
    """

    name: str
    path: Path
    config: DictConfig
    kind: str
    run_dir: Path
    group: str = ""
    task: str = ""
    seed: int | None = None

    def __post_init__(self) -> None:
        self.task = self.task or self.name

    @property
    def writes(self) -> Path | None:
        """The folder that a training job writes checkpoints to."""
        return self.run_dir if self.kind == "train" else None

    @property
    def reads(self) -> Path | None:
        """The checkpoint file that the job starts from, if any."""
        key = "fairseq.checkpoint.restore_file" if self.kind == "train" else "fairseq.common_eval.path"
        value = OmegaConf.select(self.config, key)
        return checkpoint_file(value) if value else None


def move_runs(config: DictConfig, old: str, new: str) -> None:
    """Rewrite every string below ``old`` to lie below ``new``, through mappings but not lists."""
    for key in list(config):
        value = config[key]
        if isinstance(value, DictConfig):
            move_runs(value, old, new)
        elif isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
            config[key] = new + value[len(old) :]
