"""VLM's pre-training task: the published order of the samples of a batch."""

from typing import Any

import torch
from torch import Tensor

from mmpt.tasks.task import Task

__all__ = ["VLMTask"]


class VLMTask(Task):
    """Task that puts every second sample of a batch of clips first, then the others, as published.

    The loss does not depend on it, up to rounding and the draws of dropout.
    """

    def flat_subsample(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Merge the axes of videos and clips, in the order 0, 2, 4 .., 1, 3, 5 ..; a batch without clips stays."""
        flat, leading = super().flat_subsample(batch), batch["caps"].shape[:-1]
        if len(leading) < 2:
            return flat
        return {
            key: torch.cat([value[0::2], value[1::2]])
            if isinstance(value, Tensor) and batch[key].shape[: len(leading)] == leading
            else value
            for key, value in flat.items()
        }
