"""Contrastive objectives over the pairs of a batch (VideoCLIP, Xu et al. 2021, arXiv:2109.14084, equations 3 to 5)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from mmpt.losses.candidates import cross_entropies
from mmpt.losses.scoring import ScoringLoss, ScoringOptions

__all__ = [
    "BatchContrast",
    "ContrastiveLoss",
    "ContrastiveOptions",
    "MMContraLoss",
    "T2VContraLoss",
    "V2TContraLoss",
]


@dataclass
class ContrastiveOptions(ScoringOptions):
    """Keys of ``loss``: with ``global_negatives`` the rows of all workers are the candidates of each row."""

    global_negatives: bool = False


class BatchContrast(ScoringLoss):
    """Base of the objectives that take their negatives from the batch.

    The batch is the worker's own, as published, or with ``global_negatives`` that of all workers
    (:mod:`mmpt.losses.candidates`).
    """

    config_options: ClassVar[dict[str, type]] = {"loss": ContrastiveOptions}

    def __init__(self, *, global_negatives: bool = False, **scoring: Any) -> None:
        super().__init__(**scoring)
        self.global_negatives = global_negatives


class ContrastiveLoss(BatchContrast):
    """Cross entropy of finding each row's pair among all rows of the batch, summed over the directions."""

    directions: tuple[str, ...] = ()

    def forward(self, pooled_video: Tensor, pooled_text: Tensor, padding_step: bool = False, **kwargs: Any) -> Tensor:
        """Return the scalar float32 loss of pairs (B, H) and (B, H); other keyword arguments are ignored.

        With ``global_negatives`` it is this worker's share: the mean over workers, of losses as of gradients, is that
        of one process with the whole batch. In a ``padding_step`` the pairs do not count, not as negatives either.

        Raises:
            ValueError: if the two differ in shape.
        """
        if pooled_video.shape != pooled_text.shape or pooled_video.dim() != 2:
            raise ValueError(f"pairs differ in shape: {tuple(pooled_video.shape)} and {tuple(pooled_text.shape)}")
        if padding_step:
            pooled_video, pooled_text = pooled_video[:0], pooled_text[:0]
        roles = {"text_to_video": (pooled_text, pooled_video), "video_to_text": (pooled_video, pooled_text)}
        sides = [roles[direction] for direction in self.directions]
        return cross_entropies(sides, self.scores, self.global_negatives).sum()


class T2VContraLoss(ContrastiveLoss):
    """Find each text's video."""

    directions = ("text_to_video",)


class V2TContraLoss(ContrastiveLoss):
    """Find each video's text."""

    directions = ("video_to_text",)


class MMContraLoss(ContrastiveLoss):
    """Both directions, summed, not averaged: a uniform batch of n pairs gives 2 ln n."""

    directions = ("text_to_video", "video_to_text")
