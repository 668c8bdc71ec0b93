"""What LAVENDER's batches hold beside video and text: what they train, and what stands before their texts."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mmpt.utils.errors import DataError

__all__ = ["OBJECTIVES", "PRETEXT_KEYS", "objective_of", "pretext_of", "pretext_of_texts"]

#: What ``objective`` of a batch may say; see :meth:`mmpt.models.lavender.LAVENDER.forward`.
OBJECTIVES = ("words", "captioning", "pretraining", "retrieval", "options")
#: Keys of a batch that say which task it is, where a model takes such: what stands before its texts.
PRETEXT_KEYS = ("prompts", "task_ids")


def objective_of(objective: str | Sequence[str] | None) -> str:
    """Return the one objective of a batch; DataError if its items differ."""
    kinds = {objective} if isinstance(objective, str) else set(objective or ["words"])
    if len(kinds) > 1 or not kinds <= set(OBJECTIVES):
        raise DataError(f"objective of a batch: {sorted(kinds)}; it must be one of {', '.join(OBJECTIVES)}, of all")
    return kinds.pop()


def pretext_of(batch: Mapping[str, Any]) -> dict[str, Tensor | None]:
    """Return ``prompts`` and ``task_ids`` of a batch, None where it has none."""
    return {key: batch.get(key) for key in PRETEXT_KEYS}


def pretext_of_texts(pretext: Mapping[str, Tensor | None], texts: int) -> dict[str, Tensor | None]:
    """Return a pretext of B videos, or of B videos and O options each, as one row for each of the texts."""
    flat = {
        "prompts": None if (prompts := pretext["prompts"]) is None else prompts.flatten(0, -2),
        "task_ids": None if (task_ids := pretext["task_ids"]) is None else task_ids.flatten(),
    }
    return {
        key: None if value is None else value.repeat_interleave(texts // len(value), 0) for key, value in flat.items()
    }
