"""Objectives of masked frames and masked tokens (VLM, Xu et al. 2021, arXiv:2105.09996)."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.losses.generic import summed_cross_entropy
from mmpt.modules.masking import IGNORED
from mmpt.modules.vocabulary_loss import Scores

__all__ = ["MFMMLM", "MTM", "MTMOptions"]


@dataclass
class MTMOptions:
    """Keys of ``loss``. ``pad_with_zero`` gives tokens the constant score 0 as one more competitor, as published."""

    pad_with_zero: bool = True


class MTM:
    """Cross entropy over masked frames and masked tokens together: the mean over all of them.

    Frames choose among 1 + n frames and V words, tokens among V words and n frames. The published implementation
    fills the token's missing column with the score 0, which competes; with ``pad_with_zero: false`` it does not.
    """

    config_options: ClassVar[dict[str, type]] = {"loss": MTMOptions}

    def __init__(self, pad_with_zero: bool = True) -> None:
        self.pad_with_zero = pad_with_zero

    def __call__(self, video_logits: Scores, text_logits: Scores, text_label: Tensor, **kwargs: Any) -> Tensor:
        """Return the scalar float32 loss; 0 where nothing is masked.

        Args, the logits also put off:
            video_logits: (m, 1 + n + V); the true frame is column 0.
            text_logits: (t, V + n).
            text_label: int64 (B, L) with t ids, -100 elsewhere.

        Raises:
            ValueError: if labels and scores differ in number.
        """
        text = _with_zero(text_logits) if self.pad_with_zero else text_logits
        total = _frame_loss(video_logits) + _token_loss(text, text_label)
        return total / max(len(video_logits) + len(text), 1)


class MFMMLM:
    """Cross entropy of masked frames plus that of masked tokens, each the mean over its own; 0 where it has none."""

    config_options: ClassVar[dict[str, type]] = {}

    def __call__(self, video_logits: Scores, text_logits: Scores, text_label: Tensor, **kwargs: Any) -> Tensor:
        """Return the scalar float32 loss.

        Args, the logits also put off:
            video_logits: (m, 1 + n); the true frame is column 0.
            text_logits: (t, V).
            text_label: int64 (B, L) with t ids, -100 elsewhere.

        Raises:
            ValueError: if labels and scores differ in number.
        """
        frames, tokens = _frame_loss(video_logits), _token_loss(text_logits, text_label)
        return frames / max(len(video_logits), 1) + tokens / max(len(text_logits), 1)


def _with_zero(logits: Scores) -> Scores:
    """Add a class with the score 0."""
    if isinstance(logits, Tensor):
        return F.pad(logits, (0, 1))
    others = logits.states.new_zeros(len(logits), 0) if logits.others is None else logits.others
    return replace(logits, others=F.pad(others, (0, 1)))


def _frame_loss(logits: Scores) -> Tensor:
    return summed_cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def _token_loss(logits: Scores, labels: Tensor) -> Tensor:
    targets = labels[labels != IGNORED]
    if len(targets) != len(logits):
        raise ValueError(f"{len(targets)} labelled tokens, but scores of {len(logits)}")
    return summed_cross_entropy(logits, targets)
