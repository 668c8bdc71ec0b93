"""LAVENDER's objective (arXiv:2206.07160, section 3.2): cross entropy of words, whatever the task."""

from typing import Any

from torch import Tensor

from mmpt.losses.generic import CrossEntropy, NLGLoss

__all__ = ["LAVENDERLoss"]

_classes = CrossEntropy()


class LAVENDERLoss(NLGLoss):
    """Cross entropy of the words that a batch tells; in pre-training, plus that of "true" or "false" of its pairs.

    The two means are added with equal weight (masked language modelling and video-text matching).
    """

    def __call__(  # type: ignore[override]
        self,
        logits: Tensor,
        text_label: Tensor,
        match_logits: Tensor | None = None,
        match_label: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the scalar float32 loss.

        Args:
            logits: (labelled positions, V).
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
