"""Which text belongs to a video, from scores of fused pairs (VIOLET, arXiv:2111.12681, section 3.3)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.losses.generic import accuracy
from mmpt.utils.errors import ConfigError

__all__ = ["PairMatchingLoss", "PairMatchingOptions", "check_temperature"]


@dataclass
class PairMatchingOptions:
    """Keys of ``loss``.

    Attributes:
        temperature: what the scores are divided by.
        symmetric: whether the video of each text is sought as well, not only the text of each video as published.
        mask_same_video: whether other texts of the same video are left out, instead of counting as wrong.
    """

    temperature: float = 0.05
    symmetric: bool = False
    mask_same_video: bool = True


class PairMatchingLoss:
    """Cross entropy of finding the text of each video among those of the batch; of the two directions, the mean.

    Raises:
        ConfigError: if the temperature is not positive.
    """

    config_options: ClassVar[dict[str, type]] = {"loss": PairMatchingOptions}

    def __init__(self, temperature: float = 0.05, symmetric: bool = False, mask_same_video: bool = True) -> None:
        self.temperature = check_temperature(temperature)
        self.symmetric = symmetric
        self.mask_same_video = mask_same_video

    def __call__(self, pair_scores: Tensor, video_key: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Return the scalar float32 loss.

        Args:
            pair_scores: (B, B), texts by videos; text i is of video i.
            video_key: int64 (B,), equal for items of the same clip.

        Raises:
            ValueError: if there are not as many texts as videos.
        """
        if pair_scores.dim() != 2 or pair_scores.shape[0] != pair_scores.shape[1]:
            raise ValueError(f"scores of pairs have shape {tuple(pair_scores.shape)}; expected (B, B)")
        with torch.autocast(pair_scores.device.type, enabled=False):
            scores = pair_scores.float() / self.temperature
            rows = torch.arange(len(scores), device=scores.device)
            if video_key is not None and self.mask_same_video:
                key = video_key.reshape(-1)
                same = (key[:, None] == key[None]) & (rows[:, None] != rows[None])
                scores = scores.masked_fill(same, -torch.inf)
            loss = F.cross_entropy(scores.T, rows)
            return (loss + F.cross_entropy(scores, rows)) / 2 if self.symmetric else loss

    def measures(self, pair_scores: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """Return what is logged beside the loss: how many videos find their text in the batch, in [0, 1]."""
        rows = torch.arange(len(pair_scores), device=pair_scores.device)
        return {"accuracy": accuracy(pair_scores.T, rows)}


def check_temperature(value: float) -> float:
    """Return a temperature; ConfigError if it is not positive."""
    if not 0 < value < float("inf"):
        raise ConfigError(f"loss.temperature: must be positive, not {value}")
    return value
