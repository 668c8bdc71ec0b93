"""fairseq's optimizer for bf16 and fp16, whose resumed training is the uninterrupted one.

Half-precision training steps on float32 copies of the weights. fairseq saves the rounded weights alone, and a training
that resumes steps on from these; here the copies are part of the optimizer's state.
"""

import logging
from typing import Any

import fairseq.optim
import torch
from fairseq.optim.fp16_optimizer import FP16Optimizer as PublishedOptimizer

from mmpt.utils.errors import CheckpointError

__all__ = ["FP16Optimizer"]

logger = logging.getLogger(__name__)

_KEY = "fp32_params"


class FP16Optimizer(PublishedOptimizer):
    """fairseq's, under its name, which checkpoints record; saves and restores the float32 copies."""

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, with the float32 copies in the order of the parameters."""
        return {**super().state_dict(), _KEY: [copy.data for copy in self._copies()]}

    def load_state_dict(self, state_dict: dict[str, Any], optimizer_overrides: dict[str, Any] | None = None) -> None:
        """Take over a state; one without copies goes on from the rounded weights, as in fairseq.

        Raises:
            CheckpointError: if the copies have other shapes than the parameters.
        """
        state = dict(state_dict)
        saved = state.pop(_KEY, None)
        super().load_state_dict(state, optimizer_overrides)
        if saved is None:
            logger.info("the checkpoint holds no float32 weights: this training goes on from the rounded ones")
            return
        own = self._copies()
        if [copy.shape for copy in saved] != [copy.shape for copy in own]:
            raise CheckpointError(
                "the checkpoint's float32 weights are not of the shapes of the model; begin anew with "
                "fairseq.checkpoint.reset_optimizer: true"
            )
        for copy, value in zip(own, saved, strict=True):
            copy.data.copy_(value)

    def _copies(self) -> list[torch.nn.Parameter]:
        copies = self.fp32_params
        return list(copies.values()) if isinstance(copies, dict) else list(copies)


fairseq.optim.FP16Optimizer = FP16Optimizer  # where fairseq's trainer looks for it
