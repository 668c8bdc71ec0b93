"""Typed options: each registered class declares dataclasses, read from sections of a config.

A class says which keys it reads by a class attribute::

    config_options = {"dataset": SamplingOptions, "model": TowerOptions}

The section ``""`` stands for the top level of the YAML. The schema of a file is the union
of what the classes named in it declare (:mod:`mmpt.utils.schema`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmpt.utils.errors import ConfigError

__all__ = ["read_options", "read_section", "section_of"]

T = TypeVar("T")


def section_of(config: Any, name: str) -> Any:
    """Return section ``name`` of a config (``""``: the config itself), or None where it has none."""
    if config is None or not name:
        return config
    return config.get(name)


def read_section(config: Any, name: str, options: type[T]) -> T:
    """Read options from section ``name`` of a config, as :func:`read_options`; errors name section and key."""
    return read_options(section_of(config, name), options, name)


def read_options(section: DictConfig | Mapping[str, Any] | None, options: type[T], name: str = "") -> T:
    """Read the fields of the dataclass ``options`` from a section; absent or null keys keep their default.

    Keys that are not fields are ignored here: other classes read them, and the schema
    check of the whole file has refused unknown ones.

    Args:
        section: the keys.
        options: the dataclass.
        name: of the section, for errors.

    Raises:
        ConfigError: if a value has the wrong type or a required key is missing; names the key.
    """
    if section is None:
        given: dict[str, Any] = {}
    elif OmegaConf.is_config(section):
        given = OmegaConf.to_container(section, resolve=True)  # type: ignore[assignment]
    else:
        given = dict(section)
    names = [field.name for field in dataclasses.fields(options)]  # type: ignore[arg-type]
    given = {name: given[name] for name in names if given.get(name) is not None}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(options), given)
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a required key"
        raise ConfigError(f"{name}{'.' if name else ''}{key}: {str(error).splitlines()[0]}") from error
