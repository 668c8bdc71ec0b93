"""VIOLET's objective of pre-training (arXiv:2111.12681, sections 3.2 and 3.3): MLM + MVM + VTM."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmpt.losses.generic import CrossEntropy, accuracy
from mmpt.losses.matching import check_temperature
from mmpt.modules.vocabulary_loss import Scores

__all__ = ["VIOLETLoss", "VIOLETLossOptions"]


@dataclass
class VIOLETLossOptions:
    """Keys of ``loss``: ``temperature`` divides the scores of video-text matching."""

    temperature: float = 0.05


class VIOLETLoss:
    """Sum of three cross entropies, each the mean over its own: masked words, visual tokens of masked squares, videos.

    Raises:
        ConfigError: if the temperature is not positive.
    """

    config_options: ClassVar[dict[str, type]] = {"loss": VIOLETLossOptions}

    def __init__(self, temperature: float = 0.05) -> None:
        self.temperature = check_temperature(temperature)
        self._mean = CrossEntropy()

    def parts(
        self,
        text_logits: Scores,
        text_targets: Tensor,
        code_logits: Tensor,
        code_targets: Tensor,
        matching_scores: Tensor,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Return ``mlm``, ``mvm`` and ``vtm``, float32 scalars; 0 where nothing is masked.

        Args:
            text_logits: (masked words, V), also put off, with ``text_targets`` int64.
            code_logits: (masked squares, codes), with ``code_targets`` int64.
            matching_scores: (B, O); the text that belongs to the video is column 0.
        """
        own = torch.zeros(len(matching_scores), dtype=torch.long, device=matching_scores.device)
        return {
            "mlm": self._mean(text_logits, text_targets),
            "mvm": self._mean(code_logits, code_targets),
            "vtm": self._mean(matching_scores.float() / self.temperature, own),
        }

    def measures(self, **outputs: Any) -> dict[str, Tensor]:
        """Return what is logged beside the loss: the accuracy of each objective, in [0, 1]."""
        own = torch.zeros_like(outputs["matching_scores"][:, 0], dtype=torch.long)
        return {
            "mlm_accuracy": accuracy(outputs["text_logits"], outputs["text_targets"]),
            "mvm_accuracy": accuracy(outputs["code_logits"], outputs["code_targets"]),
            "vtm_accuracy": accuracy(outputs["matching_scores"], own),
        }

    def __call__(self, **outputs: Any) -> Tensor:
        """Return the scalar float32 loss; arguments as :meth:`parts`, others are ignored."""
        parts = self.parts(**outputs)
        return parts["mlm"] + parts["mvm"] + parts["vtm"]
