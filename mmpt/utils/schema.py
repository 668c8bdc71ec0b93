"""The schema of a config: what its top level knows, plus what the classes named in it declare.

A key that no class named in the file reads, but that some class of MMPT does, is let through
and reported as unused: public configs carry such keys from the files they include. Any other
key is an error that names the nearest valid one.
"""

import dataclasses
import functools
import logging
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmpt.utils.errors import ConfigError, nearest
from mmpt.utils.options import read_options, read_section, section_of
from mmpt.utils.registry import known_names, resolve_class

__all__ = ["CORE_KEYS", "NAMED_BY", "PROJECT_KEYS", "SHARED_KEYS", "schema_keys", "validate"]

logger = logging.getLogger(__name__)

#: Where a config names a class: dotted key -> kind of the registry.
NAMED_BY = {
    "task": "task",
    "model.model_cls": "model",
    "model.mm_encoder_cls": "encoder",
    "model.video_encoder_cls": "encoder",
    "model.text_encoder_cls": "encoder",
    "loss.loss_cls": "loss",
    "dataset.meta_processor": "meta_processor",
    "dataset.video_processor": "video_processor",
    "dataset.text_processor": "text_processor",
    "dataset.aligner": "aligner",
    "predictor": "predictor",
    "metric": "metric",
    "vectorpool_cls": "vectorpool",
    "retriever_cls": "retriever",
}

#: Keys of every job, whatever classes it names, by section ("" is the top level).
CORE_KEYS: dict[str, dict[str, str]] = {
    "": {
        "includes": "file, or list of files, that this one is merged over",
        "task_type": "local_ or slurm_, and single, small, big, predict or script; sweep_big and the like are local_",
        "slurm_config": "small or big: the size of a public config whose task_type is sweep alone",
        "slurm": "section: what the job asks of a Slurm cluster",
        "task": "registered name of the task class",
        "dataset": "section: data",
        "model": "section: network",
        "loss": "section: objective",
        "fairseq": "section: flags of fairseq-train, in groups whose names do not matter",
        "eval": "section: evaluation",
        "optim": "section: what is frozen, factors of learning rate and weight decay",
        "metric": "registered name of the metric class",
        "predictor": "registered name of the predictor class",
        "gen_param": "section: how text is generated (num_beams, do_sample, ...)",
        "save_safetensors": "false: no .safetensors file of the weights is written beside each checkpoint",
        "vectorpool_cls": "registered name of the vector pool of retrieved batches",
        "retriever_cls": "registered name of the retriever of retrieved batches",
    },
    "dataset": {
        "meta_processor": "registered name",
        "video_processor": "registered name",
        "text_processor": "registered name",
        "aligner": "registered name",
        "split": "train, valid or test",
        "train_path": "list of training items",
        "val_path": "list of validation items",
        "val_holdout": "fraction of val_path's videos that is held out of training for validation",
        "test_path": "list of test items",
        "num_workers": "data workers of evaluation, in place of fairseq.dataset.num_workers",
    },
    "model": {
        "model_cls": "registered name",
        "mm_encoder_cls": "registered name of the one encoder of both modalities",
        "video_encoder_cls": "registered name of the video tower",
        "text_encoder_cls": "registered name of the text tower",
    },
    "loss": {"loss_cls": "registered name"},
    "eval": {
        "save_path": "folder of predictions and metrics",
        "weights": "model, or ema for the moving average that a training kept",
    },
    "slurm": {
        "partition": "partition, as of sbatch",
        "account": "account that is charged",
        "qos": "quality of service",
        "constraint": "features that the nodes must have",
        "exclude": "nodes to keep off",
        "time": "time limit of one run, in quotes: D-HH:MM:SS, HH:MM:SS or minutes (1-00:00:00); it goes on afterwards",
        "mem_gb": "memory per node in GB",
        "cpus_per_worker": "cores per worker; default: its data workers and one",
        "nodes": "nodes (1)",
        "gpus_per_node": "GPUs and workers per node; default: the size of the job type; 0 trains on CPUs",
        "workers_per_node": "workers per node where there are no GPUs; default: the size of the job type",
        "setup": "lines of shell that the batch script runs first (module load, conda activate)",
        "python": "what starts Python on the nodes: apptainer exec --nv image.sif python; needed in a container",
        "container_image": "image for srun --container-image (pyxis)",
        "container_mounts": "for srun --container-mounts",
        "signal_seconds": "how long before the time limit a training is told to save and requeue (120)",
        "max_requeues": "how often a job may reach its time limit and be queued again (100)",
        "options": "any other sbatch option, such as reservation: name, or exclusive: true",
    },
}
#: Sections of every job whose keys one class declares, whatever the job names.
CORE_SECTIONS = {"optim": "mmpt.optim.options:OptimOptions"}
FREE_SECTIONS = ("fairseq",)
PROJECT_KEYS = ("project_dir", "base_dir", "run_task", "seeds", "task_group")
#: What a project file may say for all of its jobs.
SHARED_KEYS = ("slurm",)


def named_classes(config: DictConfig) -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, registry kind, name) of every class that a config names."""
    for key, kind in NAMED_BY.items():
        name = OmegaConf.select(config, key, throw_on_missing=False)
        if name is not None:
            yield key, kind, str(name)


def declared_options(kind: str, name: str) -> dict[str, Any]:
    """Return section -> dataclass of a registered name."""
    return dict(getattr(resolve_class(kind, name), "config_options", {}))


def schema_keys(config: DictConfig | None = None) -> dict[str, set[str]]:
    """Return section -> keys known to the classes a config names; without a config, to all of MMPT."""
    known = {section: set(keys) for section, keys in CORE_KEYS.items()}
    known |= {section: set(_field_names(resolve_class("section", name))) for section, name in CORE_SECTIONS.items()}
    pairs: Iterator[tuple[str, str]]
    if config is None:
        pairs = ((kind, name) for kind in sorted(set(NAMED_BY.values())) for name in known_names(kind))
    else:
        pairs = ((kind, name) for _, kind, name in named_classes(config))
    for kind, name in pairs:
        for section, options in declared_options(kind, name).items():
            known.setdefault(section, set()).update(_field_names(options))
    return known


@functools.cache
def all_keys() -> dict[str, set[str]]:
    """Return section -> keys known to any class of MMPT."""
    return schema_keys()


def _field_names(options: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(options)] if dataclasses.is_dataclass(options) else list(options)


def validate(config: DictConfig, source: str) -> list[str]:
    """Check every key and the type of every value of one job's config; return the unused keys.

    Raises:
        ConfigError: naming ``source`` (the file), the key, and the nearest valid key.
    """
    unused = _validated(config, source)
    if unused:
        logger.info("%s: not read by any class it names: %s", source, ", ".join(unused))
    return unused


def _validated(config: DictConfig, source: str) -> list[str]:
    """Check the config of one job, and of each member of a multi-task training; return the keys that nothing reads."""
    for key in PROJECT_KEYS:
        if key in config:
            raise ConfigError(f"{source}: {key!r} belongs to a project file; this is read as the config of one job")
    for key, kind, name in named_classes(config):
        try:
            for section, options in declared_options(kind, name).items():
                if dataclasses.is_dataclass(options):
                    _check_refused(config, section, options)
                    read_section(config, section, options)  # type: ignore[arg-type]
        except ConfigError as error:
            raise ConfigError(f"{source}: {key}: {error}") from error
    for section, name in CORE_SECTIONS.items():
        given = section_of(config, section)
        try:
            if isinstance(given, DictConfig):  # anything else is refused below
                read_options(given, resolve_class("section", name), section)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error
    unused = _check_keys(config, source)
    members = {name: _validated(member, f"{source}: {name}") for name, member in _members(config, source)}
    # What one member reads is read; what stands in the section of a member alone is for that one to read.
    unused = [key for key in unused if all(key in of_member for of_member in members.values())]
    for name, of_member in members.items():
        own = (key for key in of_member if OmegaConf.select(config, key) is None)
        unused += [f"{name}.{key.removeprefix('dataset.')}" for key in own]
    return unused


def _members(config: DictConfig, source: str) -> list[tuple[str, DictConfig]]:
    """Return the config of each member of a task that has members, with the dotted key of its section."""
    task = resolve_class("task", str(config.get("task") or "Task"))
    member_configs = getattr(task, "member_configs", None)
    if member_configs is None:
        return []
    try:
        return [(f"dataset.members.{name}", member) for name, member in member_configs(config).items()]
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _check_refused(config: DictConfig, section: str, options: Any) -> None:
    """Refuse the keys that options know by name and do not take (their mapping ``refused``, key to reason)."""
    refused = getattr(options, "refused", {})
    for key in section_of(config, section) or ():
        if key in refused:
            raise ConfigError(f"{section}.{key}: {refused[key]}" if section else f"{key}: {refused[key]}")


def _check_keys(config: DictConfig, source: str) -> list[str]:
    known = schema_keys(config)
    anywhere: dict[str, set[str]] | None = None
    unused = []
    for section in ("", *(name for name in known if name)):
        values = section_of(config, section)
        if values is None:
            continue
        if not isinstance(values, DictConfig):
            raise ConfigError(f"{source}: {section} is a section of keys, not {type(values).__name__}")
        for key in values:
            if key in known[section] or (not section and (key in FREE_SECTIONS or key in known)):
                continue
            anywhere = anywhere or all_keys()
            dotted = f"{section}.{key!s}" if section else str(key)
            if key not in anywhere.get(section, ()):
                hint = nearest(str(key), known[section] | anywhere.get(section, set()))
                where = f"section {section!r}" if section else "the top level"
                raise ConfigError(f"{source}: unknown key {dotted!r} in {where}.{hint}")
            unused.append(dotted)
    return unused
