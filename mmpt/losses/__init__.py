"""Objectives: callables that turn a model's outputs into a scalar; one that learns (a temperature) is a module.

Registered losses are importable from here by their public names: ``from mmpt.losses import MMContraLoss``.
"""

from mmpt.utils.registry import lazy_names

__all__: list[str] = []

__getattr__, __dir__ = lazy_names("loss", __name__)
