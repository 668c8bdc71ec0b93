"""The registry: names written in YAML resolve lazily to classes.

A name is a plain name of :mod:`mmpt.utils.registry_table` or ``package.module:Class``. A plain
name stands for a class and, where dozens of public names are variations of a few classes,
for preset keyword arguments too.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmpt.utils.errors import ConfigError, nearest

__all__ = ["Entry", "build", "known_names", "lazy_names", "register", "resolve", "resolve_class"]


@dataclass(frozen=True)
class Entry:
    """One public name: ``target`` is ``module:Class``, ``preset`` are keyword arguments given to the class."""

    target: str
    preset: Mapping[str, Any] = field(default_factory=dict)


_ADDED: dict[tuple[str, str], Entry] = {}


def _table() -> dict[str, dict[str, Entry]]:
    from mmpt.utils.registry_table import TABLE  # the table needs Entry from here

    return TABLE


def register(kind: str, name: str, target: str, **preset: Any) -> None:
    """Add a plain name at run time; ``target`` is ``package.module:Class``.

    Raises:
        ConfigError: if the name is taken by something else.
    """
    entry = Entry(target, preset)
    old = _table().get(kind, {}).get(name) or _ADDED.get((kind, name))
    if old is not None and old != entry:
        raise ConfigError(f"{kind} {name!r} is already registered as {old.target}")
    _ADDED[kind, name] = entry


def known_names(kind: str) -> list[str]:
    """Return the plain names of a kind (``"aligner"``, ``"loss"`` ...), sorted."""
    return sorted({*_table().get(kind, {}), *(name for added, name in _ADDED if added == kind)})


def find(kind: str, name: str) -> Entry:
    """Return the entry of a name without importing anything.

    Raises:
        ConfigError: if the name is unknown; names the nearest one.
    """
    if ":" in name:
        return Entry(name)
    entry = _table().get(kind, {}).get(name) or _ADDED.get((kind, name))
    if entry is None:
        raise ConfigError(f"unknown {kind} {name!r}.{nearest(name, known_names(kind))}")
    return entry


def resolve_class(kind: str, name: str) -> type:
    """Import and return the class behind a name.

    Raises:
        ConfigError: if the name, module or class is unknown.
    """
    entry = find(kind, name)
    module_name, _, class_name = entry.target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise ConfigError(f"{kind} {name!r}: there is no module {module_name!r}") from error
        raise
    try:
        return getattr(module, class_name)
    except AttributeError as error:
        known = [key for key in vars(module) if not key.startswith("_")]
        raise ConfigError(
            f"{kind} {name!r}: {module_name} has no {class_name!r}.{nearest(class_name, known)}"
        ) from error


def resolve(kind: str, name: str) -> Callable[..., Any]:
    """Return the class of a name, with its preset keyword arguments bound."""
    cls = resolve_class(kind, name)
    preset = find(kind, name).preset
    return functools.partial(cls, **preset) if preset else cls


def build(kind: str, name: str, *args: Any, **kwargs: Any) -> Any:
    """Build what a name stands for: ``build("aligner", "DSAligner", config.dataset)``."""
    return resolve(kind, name)(*args, **kwargs)


def lazy_names(kind: str, package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package from which the names of a kind are to be importable."""

    def get(name: str) -> Any:
        if name.startswith("_") or name not in known_names(kind):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return resolve(kind, name)
        except ConfigError as error:
            raise AttributeError(str(error)) from error

    return get, lambda: [*vars(sys.modules[package]), *known_names(kind)]
