"""LAVENDER's objective (arXiv:2206.07160, section 3.2): cross entropy of words, whatever the task."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from mmpt.losses.generic import CrossEntropy, NLGLoss, accuracy
from mmpt.losses.matching import check_temperature
from mmpt.losses.violet import VIOLETLossOptions
from mmpt.modules.vocabulary_loss import Scores

__all__ = ["LAVENDERLoss", "LAVENDERTaskSpecificLoss"]

_classes = CrossEntropy()


class LAVENDERLoss(NLGLoss):
    """Cross entropy of the words that a batch tells; in pre-training, plus that of "true" or "false" of its pairs.

    The two means are added with equal weight (masked language modelling and video-text matching).
    """

    def __call__(  # type: ignore[override]
        self,
        logits: Scores,
        text_label: Tensor,
        match_logits: Scores | None = None,
        match_label: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the scalar float32 loss.

        Args:
            logits: (labelled positions, V), as ``match_logits`` also put off.
            text_label: int64, -100 where nothing is to be told; of any shape, in the order of the logits.
            match_logits: (pairs, V).
            match_label: int64 (pairs,), the id of "true" or of "false".

        Raises:
            ValueError: if logits and labels differ in number.
        """
        loss = super().__call__(logits, text_label)
        if match_logits is None or match_label is None:
            return loss
        return loss + _classes(match_logits, match_label)

    def measures(  # type: ignore[override]
        self, logits: Scores, text_label: Tensor, match_scores: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Return what is logged beside the loss: ``accuracy`` of the words, and in pre-training of the matching.

        ``match_scores`` (B, O) are those of each video with its own text, column 0, and with others.
        """
        if match_scores is None:
            # not left out: workers with other batches may have it
            matched = text_label.new_full((), torch.nan, dtype=torch.float32)
        else:
            matched = accuracy(match_scores, match_scores.new_zeros(len(match_scores), dtype=torch.long))
        return {**super().measures(logits, text_label), "vtm_accuracy": matched}


class LAVENDERTaskSpecificLoss(NLGLoss):
    """Pre-training of LAVENDER's baselines: masked words, plus finding the text of each video among some.

    Raises:
        ConfigError: if the temperature is not positive.
    """

    config_options: ClassVar[dict[str, type]] = {"loss": VIOLETLossOptions}

    def __init__(self, temperature: float = 0.05) -> None:
        self.temperature = check_temperature(temperature)

    def __call__(  # type: ignore[override]
        self, logits: Scores, text_label: Tensor, matching_scores: Tensor, **kwargs: Any
    ) -> Tensor:
        """Return the scalar float32 loss.

        Args:
            logits: (labelled positions, V).
            text_label: int64 (B, X), -100 where nothing is to be told.
            matching_scores: (B, O); the text that belongs to the video is column 0.

        Raises:
            ValueError: if logits and labels differ in number.
        """
        own = torch.zeros(len(matching_scores), dtype=torch.long, device=matching_scores.device)
        return super().__call__(logits, text_label) + _classes(matching_scores.float() / self.temperature, own)

    def measures(  # type: ignore[override]
        self, logits: Scores, text_label: Tensor, matching_scores: Tensor, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Return what is logged beside the loss: ``accuracy`` of the words, and of the matching."""
        own = torch.zeros(len(matching_scores), dtype=torch.long, device=matching_scores.device)
        return {**super().measures(logits, text_label), "vtm_accuracy": accuracy(matching_scores, own)}
