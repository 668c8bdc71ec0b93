"""The objective of a model with a head for each task, chosen by what the model has computed of a batch."""

from typing import Any

from torch import Tensor

from mmpt.losses.generic import CrossEntropy, NLGLoss
from mmpt.losses.matching import PairMatchingLoss
from mmpt.modules.vocabulary_loss import Scores

__all__ = ["HeadsLoss"]

_classes, _words = CrossEntropy(), NLGLoss()


class HeadsLoss(PairMatchingLoss):
    """Scores of all pairs: as :class:`PairMatchingLoss`. Questions, and masked words: cross entropy."""

    def __call__(
        self,
        pair_scores: Tensor | None = None,
        video_key: Tensor | None = None,
        logits: Scores | None = None,
        targets: Tensor | None = None,
        text_label: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the scalar float32 loss.

        Args:
            pair_scores: (B, B), texts by videos, with ``video_key`` int64 (B,).
            logits: (B, C), with ``targets`` int64 (B,), -100 where a row does not count; or (n, V), of the n positions
                that ``text_label`` int64 (B, X) names.

        Raises:
            ValueError: if a batch has none of these, or they do not fit.
        """
        if pair_scores is not None:
            return super().__call__(pair_scores, video_key)
        if logits is not None and targets is not None:
            return _classes(logits, targets)
        if logits is not None and text_label is not None:
            return _words(logits, text_label)
        raise ValueError("neither scores of pairs, nor logits with targets or text_label")

    def measures(
        self,
        pair_scores: Tensor | None = None,
        logits: Scores | None = None,
        targets: Tensor | None = None,
        text_label: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Return what is logged beside the loss: the ``accuracy`` of what the batch has."""
        if pair_scores is not None:
            return super().measures(pair_scores)
        if logits is not None and targets is not None:
            return _classes.measures(logits, targets)
        return {} if logits is None or text_label is None else _words.measures(logits, text_label)
