"""Choosing one of several texts for a video: multiple-choice question answering."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.losses.scoring import ScoringLoss

__all__ = ["MultipleChoiceLoss"]


class MultipleChoiceLoss(ScoringLoss):
    """Cross entropy of the right option among the options of its own question."""

    def forward(
        self,
        pooled_video: Tensor,
        pooled_text: Tensor,
        answers: Tensor,
        option_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the scalar float32 loss of videos (B, H) and their O options each, video after video (B * O, H).

        Args:
            answers: index of the right option of each video, int64 (B,) or (B, 1).
            option_mask: bool (B * O,), false on options that only fill up questions with fewer than O.

        Raises:
            ValueError: if options or answers do not fit the videos.
        """
        videos = len(pooled_video)
        if not videos or not len(pooled_text) or len(pooled_text) % videos or answers.numel() != videos:
            raise ValueError(
                f"{videos} videos with {len(pooled_text)} options and {answers.numel()} answers: every video needs "
                "equally many options and one answer"
            )
        options = pooled_text.unflatten(0, (videos, -1))
        scores = self.scores(options, pooled_video[:, None]).squeeze(-1)
        if option_mask is not None:
            scores = scores.masked_fill(~option_mask.reshape(scores.shape).bool(), -torch.inf)
        return F.cross_entropy(scores, answers.reshape(-1))
