"""Models: one file per system, all behind :class:`mmpt.models.base.VideoTextModel`.

Registered models are importable from here by their public names: ``from mmpt.models import MMFusionSeparate``.
"""

from mmpt.utils.registry import lazy_names

__all__: list[str] = []

__getattr__, __dir__ = lazy_names("model", __name__)
