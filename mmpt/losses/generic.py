"""Supervised objectives that serve any task: of a model's ``logits`` and the batch's targets.

Each is a mean over what is labelled, in float32; a batch in which nothing is labelled gives zero with a gradient of
zeros, not NaN.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.losses.candidates import single_or_double
from mmpt.modules.masking import IGNORED
from mmpt.modules.vocabulary_loss import Scores, VocabularyScores

__all__ = [
    "BCE",
    "L1",
    "MSE",
    "ArgmaxCrossEntropy",
    "CrossEntropy",
    "ElementwiseLoss",
    "NLGLoss",
    "SmoothL1",
    "accuracy",
    "summed_cross_entropy",
]


def summed_cross_entropy(logits: Scores, targets: Tensor) -> Tensor:
    """Return the sum of the rows' cross entropies, float32 (float64 stays); label -100 is left out.

    Args:
        logits: (.., C), or rows of scores that are put off.
        targets: int64, of as many elements as there are rows.

    Raises:
        ValueError: if there are more or fewer targets than rows.
    """
    rows = logits if isinstance(logits, VocabularyScores) else logits.reshape(-1, logits.shape[-1])
    labels = targets.reshape(-1)
    if len(rows) != len(labels):
        raise ValueError(f"scores of {len(rows)} rows do not fit {len(labels)} targets")
    if isinstance(rows, VocabularyScores):
        return rows.cross_entropy(labels)
    with torch.autocast(rows.device.type, enabled=False):
        return F.cross_entropy(single_or_double(rows), labels, ignore_index=IGNORED, reduction="sum")


def accuracy(logits: Scores, targets: Tensor) -> Tensor:
    """Return the share of rows (.., C) whose largest logit is that of their target, float32; NaN where none counts.

    Label -100 does not count. What a loss returns by ``measures`` is logged: the mean over the batches that have one.
    """
    labels = targets.reshape(-1)
    counts = labels != IGNORED
    best = logits.best() if isinstance(logits, VocabularyScores) else logits.reshape(-1, logits.shape[-1]).argmax(-1)
    right = (best == labels) & counts
    return right.sum().float() / counts.sum()


class CrossEntropy:
    """Cross entropy of classes; label -100 is left out."""

    def __call__(self, logits: Scores, targets: Tensor, **kwargs: Any) -> Tensor:
        """Return the scalar loss, float32 (float64 stays); arguments and errors as :func:`summed_cross_entropy`."""
        return summed_cross_entropy(logits, targets) / (targets != IGNORED).sum().clamp(min=1)

    def measures(self, logits: Scores, targets: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """Return what is logged beside the loss: ``accuracy`` in [0, 1]."""
        return {"accuracy": accuracy(logits, targets)}


class ArgmaxCrossEntropy(CrossEntropy):
    """Cross entropy of the class whose target is largest: one-hot or soft targets (.., C)."""

    def __call__(self, logits: Scores, targets: Tensor, **kwargs: Any) -> Tensor:
        """Return the scalar float32 loss of logits and targets, both (.., C)."""
        return super().__call__(logits, targets.argmax(dim=-1))

    def measures(self, logits: Scores, targets: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """Return what is logged beside the loss, as :class:`CrossEntropy`."""
        return super().measures(logits, targets.argmax(dim=-1))


class NLGLoss(CrossEntropy):
    """Cross entropy of a text's words, of which the model has computed the labelled positions alone."""

    def __call__(self, logits: Scores, text_label: Tensor, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """Return the scalar float32 loss of logits (labelled positions, V), also put off.

        Args:
            text_label: int64 ids (B, L), -100 where nothing is to be predicted; the logits' rows are its labelled
                positions in order.

        Raises:
            ValueError: if there are more or fewer labelled positions than rows.
        """
        return super().__call__(logits, text_label[text_label != IGNORED])

    def measures(self, logits: Scores, text_label: Tensor, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Return what is logged beside the loss: ``accuracy`` of the words."""
        return super().measures(logits, text_label[text_label != IGNORED])


class ElementwiseLoss:
    """Mean of a distance between each number and its target."""

    distance: ClassVar[Callable[..., Tensor]]

    def __call__(self, logits: Tensor, targets: Tensor, **kwargs: Any) -> Tensor:
        """Return the scalar float32 loss of logits and as many targets, which take the shape of the logits.

        Raises:
            ValueError: if there are more or fewer targets than logits.
        """
        if logits.numel() != targets.numel():
            raise ValueError(f"logits {tuple(logits.shape)} do not fit targets {tuple(targets.shape)}")
        with torch.autocast(logits.device.type, enabled=False):
            wanted = targets.reshape(logits.shape).float()
            return type(self).distance(logits.float(), wanted, reduction="sum") / max(logits.numel(), 1)


class BCE(ElementwiseLoss):
    """Binary cross entropy of logits, each class for itself; targets in [0, 1]."""

    distance = F.binary_cross_entropy_with_logits


class MSE(ElementwiseLoss):
    """Squared difference."""

    distance = F.mse_loss


class L1(ElementwiseLoss):
    """Absolute difference."""

    distance = F.l1_loss


class SmoothL1(ElementwiseLoss):
    """Squared difference below 1, absolute above."""

    distance = F.smooth_l1_loss
