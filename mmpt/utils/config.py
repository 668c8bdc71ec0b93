"""YAML configs: includes, overrides, and the check of a whole file against its schema.

Merge order: included files, the file itself, the project's ``task_group`` section
(:mod:`mmpt.launch.project`), then ``-o key.sub=value`` of the command line.
"""

import copy
import functools
import hashlib
import io
import itertools
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmpt.utils.errors import ConfigError
from mmpt.utils.files import atomic_open, resolve_path
from mmpt.utils.schema import validate

__all__ = ["apply_overrides", "fingerprint", "load_config", "read_yaml", "save_config", "training_batch_size"]


#: What yaml and OmegaConf raise for files that are no configs, dates that do not exist and keys that cannot be keys.
_NO_CONFIG = (
    yaml.YAMLError,
    OmegaConfBaseException,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)
_MOST_VALUES = 100_000


def read_yaml(path: str | os.PathLike[str], _seen: tuple[Path, ...] = ()) -> DictConfig:
    """Read a YAML file and merge it over the files that its ``includes`` names.

    An included path is relative to the working directory, else to the repository, else to the
    folder of the including file. Lists replace lists; ``null`` switches a key off.

    Raises:
        ConfigError: if a file is missing, is not a YAML mapping, or includes itself; names the file.
    """
    file = resolve_path(path)
    if file.resolve() in _seen:
        raise ConfigError(f"{path}: includes itself through {_seen[-1]}")
    try:
        content = _read_plain(file)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file (looked in {Path.cwd()} and below the repository)") from error
    except (*_NO_CONFIG, OSError) as error:
        raise ConfigError(f"{path}: not a readable YAML file: {error}") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{path}: a config is a mapping of keys to values, this file holds something else")
    config, parents = content, _includes(content, path)
    merged = OmegaConf.create()
    for parent in parents:  # each is this call's own, and is merged without a copy
        found = resolve_path(parent)
        if not os.path.exists(found) and os.path.exists(file.parent / parent):
            found = file.parent / parent
        try:
            included = read_yaml(found, (*_seen, file.resolve()))
        except ConfigError as error:
            raise ConfigError(f"{error} [included by {path}]") from error
        merged = _merge(merged, included, file)
    return _merge(merged, config, file)


def _read_plain(file: Path) -> DictConfig | ListConfig:
    """Read one file; ConfigError, which does not name it, if its aliases unfold to more than any config holds."""
    return copy.deepcopy(_parsed(file.read_text(encoding="utf-8")))


@functools.lru_cache(maxsize=512)  # the jobs of a project include the same few files again and again
def _parsed(text: str) -> DictConfig | ListConfig:
    if "*" in text and _unfolded(yaml.compose(text, yaml.SafeLoader), {}) > _MOST_VALUES:
        raise ConfigError(f"its aliases unfold to more than {_MOST_VALUES} values, or hold themselves; write them out")
    return OmegaConf.load(io.StringIO(text))


def _unfolded(node: yaml.Node | None, known: dict[int, float]) -> float:
    """Return how many values a node holds when every alias is written out; without end if it holds itself."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf  # what it counts for inside itself
        parts = itertools.chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_unfolded(part, known) for part in parts)
    return known[id(node)]


def _includes(config: DictConfig, path: str | os.PathLike[str]) -> list[str]:
    """Take the names of the included files off a config."""
    try:
        given = config.pop("includes", None)
        names = [] if given is None else list(given) if isinstance(given, ListConfig) else [given]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: includes: {_first_line(error)}") from error
    for name in names:
        if not isinstance(name, str) or not name or "\0" in name:
            raise ConfigError(f"{path}: includes: {name!r} is not the name of a file")
    return names


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _merge(base: DictConfig, over: DictConfig, file: Path) -> DictConfig:
    """Merge ``over`` into ``base``, which is changed, and return it."""
    try:
        base.merge_with(over)
    except _NO_CONFIG as error:
        raise ConfigError(f"{file}: cannot be merged over what it includes: {error}") from error
    return base


def apply_overrides(config: DictConfig, overrides: Iterable[str]) -> DictConfig:
    """Return a copy of ``config`` with ``key.sub=value`` settings applied; values are parsed as YAML.

    Raises:
        ConfigError: if an override is not of the form ``key.sub=value``.
    """
    result = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    assert isinstance(result, DictConfig)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"-o {override}: write it as key.sub=value, for example -o dataset.max_len=96")
        try:
            OmegaConf.update(result, key.strip(), yaml.safe_load(value), force_add=True)
        except _NO_CONFIG as error:
            raise ConfigError(f"-o {override}: {error}") from error
    return result


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> DictConfig:
    """Read the YAML of one job, apply overrides and check it against the schema of the classes it names.

    ``${key}`` takes the value of another key, ``${oc.env:NAME}`` that of an environment variable, at each use; no
    resolver of OmegaConf runs anything else.

    Raises:
        ConfigError: naming the file and the key that is wrong, and the nearest right one.
    """
    config = apply_overrides(read_yaml(path), overrides)
    try:
        OmegaConf.to_container(config, resolve=True)
    except _NO_CONFIG as error:
        raise ConfigError(f"{path}: cannot be resolved: {_first_line(error)}") from error
    validate(config, str(path))
    return config


def save_config(config: DictConfig, path: str | os.PathLike[str], header: str = "") -> None:
    """Write a config as YAML, atomically; ``header`` lines become comments."""
    with atomic_open(path) as file:
        file.writelines(f"# {line}\n" for line in header.splitlines())
        file.write(OmegaConf.to_yaml(config))


def fingerprint(config: DictConfig | ListConfig) -> str:
    """Return the SHA-256 of a config's content, independent of the order of its keys."""
    content = OmegaConf.to_container(config, resolve=True)
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def training_batch_size(config: DictConfig) -> int | None:
    """Return dataset items per batch: ``fairseq.dataset.batch_size`` counts clips, an item holds ``subsampling``.

    Raises:
        ConfigError: if the batch is smaller than one item.
    """
    batch_size = OmegaConf.select(config, "fairseq.dataset.batch_size")
    if batch_size is None:
        return None
    subsampling = OmegaConf.select(config, "dataset.subsampling") or 1
    for key, value in (("fairseq.dataset.batch_size", batch_size), ("dataset.subsampling", subsampling)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{key} must be a whole number of at least 1, not {value!r}")
    if batch_size < subsampling:
        raise ConfigError(
            f"fairseq.dataset.batch_size is {batch_size} clips, but one item holds dataset.subsampling={subsampling}"
        )
    return int(batch_size) // int(subsampling)
