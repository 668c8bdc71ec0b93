"""Noise-contrastive objectives: of scores of aligned pairs, and of clips with several candidate texts (MIL-NCE)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.losses.contrastive import ScoringLoss

__all__ = ["NCE", "MILNCELoss"]


class NCE:
    """Cross entropy of finding each positive score among itself and the negatives, which all positives share.

    A model trained with it must return ``align_scores``. No shipped model does: it is for models of one's own.
    """

    def __call__(self, align_scores: Tensor, **kwargs: Any) -> Tensor:
        """Return the scalar float32 loss of scores (2B, >= 1): B aligned pairs, then B pairs that are not.

        Only the first column counts.

        Raises:
            ValueError: if the scores are not of that shape.
        """
        if align_scores.dim() != 2 or len(align_scores) % 2 or not align_scores.numel():
            raise ValueError(f"align_scores have shape {tuple(align_scores.shape)}, expected (2 x pairs, 1 or more)")
        positive, negative = align_scores[:, 0].float().chunk(2)
        rows = torch.cat((positive[:, None], negative.expand(len(positive), -1)), dim=1)
        return F.cross_entropy(rows, torch.zeros(len(rows), dtype=torch.long, device=rows.device))


class MILNCELoss(ScoringLoss):
    """Find any of a clip's candidate texts among the texts of the other clips and the videos of the other texts.

    Miech et al., CVPR 2020 (arXiv:1912.06430), equation 1: minus the logarithm of the share that the clip's own pairs
    have in the sum of exp(score) over its own pairs, its video with all other texts, and its texts with all other
    videos; the mean over clips. A uniform batch of B clips gives ln(2B - 1), whatever the number of candidates.
    """

    def __call__(self, pooled_video: Tensor, pooled_text: Tensor, **kwargs: Any) -> Tensor:
        """Return the scalar float32 loss of B clips (B, H) and their C texts each, clip after clip (B * C, H).

        Raises:
            ValueError: if the texts are not equally many for every clip.
        """
        clips = len(pooled_video)
        if not clips or not len(pooled_text) or len(pooled_text) % clips:
            raise ValueError(f"{len(pooled_text)} texts cannot be the candidates of {clips} videos")
        # (video, clip of the text, candidate)
        scores = self.scores(pooled_text, pooled_video).T.reshape(clips, clips, -1)
        own = torch.eye(clips, dtype=torch.bool, device=scores.device)[:, :, None]
        other_videos = scores.transpose(0, 1).masked_fill(own, float("-inf"))
        everything = torch.cat((scores, other_videos), dim=1).flatten(1)
        positive = scores.diagonal(dim1=0, dim2=1).T
        return (everything.logsumexp(dim=1) - positive.logsumexp(dim=1)).mean()
