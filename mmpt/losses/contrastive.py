"""Contrastive objectives over the pairs of a batch (VideoCLIP, Xu et al. 2021, arXiv:2109.14084, equations 3 to 5)."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.utils.errors import ConfigError

__all__ = [
    "ContrastiveLoss",
    "ContrastiveOptions",
    "MMContraLoss",
    "ScoringLoss",
    "T2VContraLoss",
    "V2TContraLoss",
]


@dataclass
class ContrastiveOptions:
    """Keys of ``loss``: ``temperature`` divides the scores, ``normalize`` makes them cosines."""

    temperature: float = 1.0
    normalize: bool = False


class ScoringLoss:
    """Base of the objectives that score videos against texts: what the scores are.

    Published behaviour is the default: raw dot products, no temperature. ``normalize`` takes cosines instead,
    ``temperature`` divides the scores.

    Raises:
        ConfigError: if the temperature is not a positive number.
    """

    config_options: ClassVar[dict[str, type]] = {"loss": ContrastiveOptions}

    def __init__(self, temperature: float = 1.0, normalize: bool = False) -> None:
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ConfigError(f"loss.temperature: must be positive, not {temperature}")
        self.temperature = temperature
        self.normalize = normalize

    def scores(self, texts: Tensor, videos: Tensor) -> Tensor:
        """Return float32 scores (.., T, V) of texts (.., T, H) with videos (.., V, H).

        Scores reach hundreds: half precision would round them by whole units, so autocast is off.
        """
        with torch.autocast(texts.device.type, enabled=False):
            texts, videos = texts.float(), videos.float()
            if self.normalize:
                texts, videos = F.normalize(texts, dim=-1), F.normalize(videos, dim=-1)
            return texts @ videos.transpose(-2, -1) / self.temperature


class ContrastiveLoss(ScoringLoss):
    """Cross entropy of finding each row's pair among all rows of the batch, summed over the directions."""

    directions: tuple[str, ...] = ()

    def __call__(self, pooled_video: Tensor, pooled_text: Tensor, **kwargs: Any) -> Tensor:
        """Return the scalar float32 loss of pairs (B, H) and (B, H); other keyword arguments are ignored.

        Raises:
            ValueError: if the two differ in shape.
        """
        if pooled_video.shape != pooled_text.shape or pooled_video.dim() != 2:
            raise ValueError(f"pairs differ in shape: {tuple(pooled_video.shape)} and {tuple(pooled_text.shape)}")
        scores = self.scores(pooled_text, pooled_video)
        targets = torch.arange(len(scores), device=scores.device)
        by_direction = {"text_to_video": scores, "video_to_text": scores.T}
        return sum(
            (F.cross_entropy(by_direction[direction], targets) for direction in self.directions),
            start=scores.new_zeros(()),
        )


class T2VContraLoss(ContrastiveLoss):
    """Find each text's video."""

    directions = ("text_to_video",)


class V2TContraLoss(ContrastiveLoss):
    """Find each video's text."""

    directions = ("video_to_text",)


class MMContraLoss(ContrastiveLoss):
    """Both directions, summed, not averaged: a uniform batch of n pairs gives 2 ln n."""

    directions = ("text_to_video", "video_to_text")
