"""Objectives: callables without parameters that turn a model's outputs into a scalar.

Registered losses are importable from here by their public names: ``from mmpt.losses import MMContraLoss``.
"""

from typing import Any

from mmpt.utils.errors import ConfigError
from mmpt.utils.registry import known_names, resolve

__all__: list[str] = []


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in known_names("loss"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return resolve("loss", name)
    except ConfigError as error:
        raise AttributeError(str(error)) from error


def __dir__() -> list[str]:
    return [*globals(), *known_names("loss")]
