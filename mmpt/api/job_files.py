"""The config of a job and the checkpoint it means, for those who did not run it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mmpt.utils.config import apply_overrides, load_config, read_yaml
from mmpt.utils.errors import CheckpointError, ConfigError
from mmpt.utils.files import resolve_path
from mmpt.utils.schema import validate
from mmpt.utils.weight_files import checkpoint_file

__all__ = ["find_checkpoint", "read_job", "sizes_of"]


def read_job(path: Path, overrides: Sequence[str]) -> DictConfig:
    """Read the config of a job from its file, else from its project's."""
    if resolve_path(path).exists():
        if "project_dir" in read_yaml(resolve_path(path)):
            raise ConfigError(
                f"{path}: is a project, of several jobs. Name one of them, written or not, as {path.with_suffix('')}"
                "/JOB.yaml: mmpt launch --dryrun lists them"
            )
        return load_config(path, overrides)
    project = resolve_path(path.parent.parent / f"{path.parent.name}.yaml")
    if path.parent.name and project.is_file() and "base_dir" in read_yaml(project):
        # The one import upwards: projects are the launcher's, and a model can be had before it has run.
        from mmpt.launch.project import expand_project

        jobs = {job.name: job.config for job in expand_project(project).jobs}
        if path.name in jobs:
            config = apply_overrides(jobs[path.name], overrides)
            validate(config, str(path))
            return config
        raise ConfigError(f"{path}: {project} expands to no such job, but to {', '.join(jobs)}")
    raise ConfigError(
        f"{path}: no such file, nor a project {project} that expands to it. "
        "Write the files of a project with: python locallaunch.py PROJECT.yaml --dryrun"
    )


def find_checkpoint(config: DictConfig, checkpoint: Path, source: str) -> Path:
    """Return the file of a checkpoint that is given by path, or by name in one of the folders that a config names."""
    if checkpoint.name != str(checkpoint):
        return checkpoint
    evaluated = OmegaConf.select(config, "fairseq.common_eval.path")
    folders = (
        OmegaConf.select(config, "eval.save_path"),
        OmegaConf.select(config, "fairseq.checkpoint.save_dir"),
        Path(evaluated).parent if evaluated else None,
    )
    files = list(dict.fromkeys(Path(folder) / checkpoint for folder in folders if folder))
    for file in files:
        if checkpoint_file(resolve_path(file)).is_file():
            return file
    raise CheckpointError(
        f"{source}: no checkpoint {' or '.join(map(str, files)) or checkpoint}. Run the training that writes it, or "
        "name another with its folder: checkpoint='FOLDER/FILE'"
    )


def sizes_of(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the sizes that a training takes from its data: width of the features and number of classes."""
    found = {}
    for name, tensor in state.items():
        if name.endswith("videomlp.linear1.weight"):
            found["model.input_dim"] = tensor.shape[1]
        if name.endswith(("_encoder.classifier.weight", "fc.3.weight")) or name == "answer_output.weight":
            found["model.num_labels"] = tensor.shape[0]
    return found
