"""Contrastive objectives over the pairs of a batch (VideoCLIP, Xu et al. 2021, arXiv:2109.14084, equations 3 to 5)."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.utils.distributed import gather_rows, world
from mmpt.utils.errors import ConfigError

__all__ = [
    "ContrastiveLoss",
    "ContrastiveOptions",
    "MMContraLoss",
    "ScoringLoss",
    "ScoringOptions",
    "T2VContraLoss",
    "V2TContraLoss",
]


@dataclass
class ScoringOptions:
    """Keys of ``loss``: ``temperature`` divides the scores, ``normalize`` makes them cosines."""

    temperature: float = 1.0
    normalize: bool = False


@dataclass
class ContrastiveOptions(ScoringOptions):
    """Keys of ``loss``: with ``global_negatives`` the rows of all workers are the candidates of each row."""

    global_negatives: bool = False


class ScoringLoss:
    """Base of the objectives that score videos against texts: what the scores are.

    Published behaviour is the default: raw dot products, no temperature. ``normalize`` takes cosines instead,
    ``temperature`` divides the scores.

    Raises:
        ConfigError: if the temperature is not a positive number.
    """

    config_options: ClassVar[dict[str, type]] = {"loss": ScoringOptions}

    def __init__(self, temperature: float = 1.0, normalize: bool = False) -> None:
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ConfigError(f"loss.temperature: must be positive, not {temperature}")
        self.temperature = temperature
        self.normalize = normalize

    def scores(self, texts: Tensor, videos: Tensor) -> Tensor:
        """Return float32 scores (.., T, V) of texts (.., T, H) with videos (.., V, H); float64 stays float64.

        Scores reach hundreds: half precision would round them by whole units, so autocast is off.
        """
        with torch.autocast(texts.device.type, enabled=False):
            texts, videos = _single_or_double(texts), _single_or_double(videos)
            if self.normalize:
                texts, videos = F.normalize(texts, dim=-1), F.normalize(videos, dim=-1)
            return texts @ videos.transpose(-2, -1) / self.temperature


class ContrastiveLoss(ScoringLoss):
    """Cross entropy of finding each row's pair among all rows of the batch, summed over the directions.

    The batch is the worker's own, as published, or with ``global_negatives`` that of all workers: each worker then
    scores its rows with the candidates of all (local x global scores, never global x global), and the gradient reaches
    the candidates on the workers that made them.
    """

    config_options: ClassVar[dict[str, type]] = {"loss": ContrastiveOptions}
    directions: tuple[str, ...] = ()

    def __init__(self, temperature: float = 1.0, normalize: bool = False, global_negatives: bool = False) -> None:
        super().__init__(temperature, normalize)
        self.global_negatives = global_negatives

    def __call__(self, pooled_video: Tensor, pooled_text: Tensor, **kwargs: Any) -> Tensor:
        """Return the scalar float32 loss of pairs (B, H) and (B, H); other keyword arguments are ignored.

        With ``global_negatives`` it is this worker's share: the mean over workers, of losses as of gradients, is that
        of one process with the whole batch.

        Raises:
            ValueError: if the two differ in shape.
        """
        if pooled_video.shape != pooled_text.shape or pooled_video.dim() != 2:
            raise ValueError(f"pairs differ in shape: {tuple(pooled_video.shape)} and {tuple(pooled_text.shape)}")
        if self.global_negatives and world()[1] > 1:
            return self._share_of_all(pooled_video, pooled_text)
        scores = self.scores(pooled_text, pooled_video)
        targets = torch.arange(len(scores), device=scores.device)
        by_direction = {"text_to_video": scores, "video_to_text": scores.T}
        return sum(
            (F.cross_entropy(by_direction[direction], targets) for direction in self.directions),
            start=scores.new_zeros(()),
        )

    def _share_of_all(self, videos: Tensor, texts: Tensor) -> Tensor:
        """Return the sum over this worker's pairs, divided by the mean number of pairs of a worker.

        fairseq averages over workers, whatever their numbers of pairs B: a mean over the pairs of each would count
        those of a short batch for more. The weight B / (mean B) on that mean, here without the division by B, makes
        the average the mean over all pairs.
        """
        roles = {"text_to_video": (texts, videos), "video_to_text": (videos, texts)}
        sides = [roles[direction] for direction in self.directions]
        # One gather for all directions: one round trip, and no order of backward passes for workers to differ in.
        # Before it, half precision is left: it would round the gradients when they are summed over workers.
        everyone, offset = gather_rows(torch.stack([_single_or_double(keys) for _, keys in sides], dim=1))
        targets = torch.arange(offset, offset + len(texts), device=everyone.device)
        total = everyone.new_zeros(())
        for (queries, _), keys in zip(sides, everyone.unbind(1), strict=True):
            total = total + F.cross_entropy(self.scores(queries, keys), targets, reduction="sum")
        return total * (world()[1] / len(everyone))


class T2VContraLoss(ContrastiveLoss):
    """Find each text's video."""

    directions = ("text_to_video",)


class V2TContraLoss(ContrastiveLoss):
    """Find each video's text."""

    directions = ("video_to_text",)


class MMContraLoss(ContrastiveLoss):
    """Both directions, summed, not averaged: a uniform batch of n pairs gives 2 ln n."""

    directions = ("text_to_video", "video_to_text")


def _single_or_double(values: Tensor) -> Tensor:
    """Return half-precision values as float32, others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
