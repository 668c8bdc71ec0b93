"""Models: one file per system, all behind :class:`mmpt.models.base.VideoTextModel`.

Registered models are importable from here by their public names: ``from mmpt.models import MMFusionSeparate``.
"""

from typing import Any

from mmpt.utils.errors import ConfigError
from mmpt.utils.registry import known_names, resolve

__all__: list[str] = []


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in known_names("model"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return resolve("model", name)
    except ConfigError as error:
        raise AttributeError(str(error)) from error


def __dir__() -> list[str]:
    return [*globals(), *known_names("model")]
