"""What LAVENDER (arXiv:2206.07160) and its task-specific baselines share: frames, and files of weights."""

from typing import Any

from torch import Tensor

from mmpt.models.cross_modal import CrossModalModel
from mmpt.models.lavender_weights import published_names, warn_of_contradictions

__all__ = ["LAVENDERBase"]


class LAVENDERBase(CrossModalModel):
    """A fusing model with LAVENDER's weights. What the config says otherwise than their training is warned of."""

    frame_order = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        warn_of_contradictions(config, self.sequence, self.options)

    def published_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bring published weights, also those of SwinBERT, to the names and the table sizes of this model."""
        return super().published_state(published_names(state))
