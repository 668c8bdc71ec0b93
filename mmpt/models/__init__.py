"""Models: one file per system, all behind :class:`mmpt.models.base.VideoTextModel`.

Registered models are importable from here by their public names: ``from mmpt.models import MMFusionSeparate``.
"""

from typing import Any

from mmpt.utils.registry import lazy_names

__all__: list[str] = []

_registered, _names = lazy_names("model", __name__)


def __getattr__(name: str) -> Any:
    if name == "MMPTModel":  # its published place; it stands on top of all models
        from mmpt.api import MMPTModel

        return MMPTModel
    return _registered(name)


def __dir__() -> list[str]:
    return [*_names(), "MMPTModel"]
