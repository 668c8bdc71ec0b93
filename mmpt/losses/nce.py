"""Noise-contrastive objectives: of scores of aligned pairs, and of clips with several candidate texts (MIL-NCE)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.losses.candidates import gather_candidates, single_or_double
from mmpt.losses.contrastive import BatchContrast

__all__ = ["NCE", "MILNCELoss", "NCEOptions"]


@dataclass
class NCEOptions:
    """Keys of ``loss``: with ``global_negatives`` all workers' negatives are compared with each positive."""

    global_negatives: bool = False


class NCE:
    """Cross entropy of finding each positive score among itself and the negatives, which all positives share.

    A model trained with it must return ``align_scores``. No shipped model does: it is for models of one's own.
    """

    config_options: ClassVar[dict[str, type]] = {"loss": NCEOptions}

    def __init__(self, global_negatives: bool = False) -> None:
        self.global_negatives = global_negatives

    def __call__(self, align_scores: Tensor, padding_step: bool = False, **kwargs: Any) -> Tensor:
        """Return the scalar float32 loss of scores (2B, >= 1): B aligned pairs, then B pairs that are not.

        Only the first column counts. With ``global_negatives`` the loss is this worker's share; in a ``padding_step``
        the scores do not count.

        Raises:
            ValueError: if the scores are not of that shape.
        """
        if align_scores.dim() != 2 or len(align_scores) % 2 or not align_scores.numel():
            raise ValueError(f"align_scores have shape {tuple(align_scores.shape)}, expected (2 x pairs, 1 or more)")
        positive, negative = single_or_double(align_scores[:, 0]).chunk(2)
        if padding_step:
            positive, negative = positive[:0], negative[:0]
        negatives, _, share = gather_candidates(negative, self.global_negatives)
        rows = torch.cat((positive[:, None], negatives.expand(len(positive), -1)), dim=1)
        targets = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
        return F.cross_entropy(rows, targets, reduction="sum") * share


class MILNCELoss(BatchContrast):
    """Find any of a clip's candidate texts among the texts of the other clips and the videos of the other texts.

    Miech et al., CVPR 2020 (arXiv:1912.06430), equation 1: minus the logarithm of the share that the clip's own pairs
    have in the sum of exp(score) over its own pairs, its video with all other texts, and its texts with all other
    videos; the mean over clips. A uniform batch of B clips gives ln(2B - 1), whatever the number of candidates.
    """

    def forward(self, pooled_video: Tensor, pooled_text: Tensor, padding_step: bool = False, **kwargs: Any) -> Tensor:
        """Return the scalar float32 loss of B clips (B, H) and their C texts each, clip after clip (B * C, H).

        With ``global_negatives`` the other clips are those of all workers, C being the same on each, and the loss is
        this worker's share; in a ``padding_step`` the clips do not count.

        Raises:
            ValueError: if the texts are not equally many for every clip.
        """
        clips = len(pooled_video)
        if not clips or not len(pooled_text) or len(pooled_text) % clips:
            raise ValueError(f"{len(pooled_text)} texts cannot be the candidates of {clips} videos")
        # (clip, its video and its texts, H): one gather for both
        own = torch.cat((pooled_video[:, None], pooled_text.unflatten(0, (clips, -1))), dim=1)
        own = single_or_double(own[:0] if padding_step else own)
        everyone, first, share = gather_candidates(own, self.global_negatives)
        shape = (len(own), own.shape[1] - 1, len(everyone))  # (own clip, candidate, any clip)
        with_texts = self.scores(own[:, 0], everyone[:, 1:].transpose(0, 1).flatten(0, 1)).view(shape)
        with_videos = self.scores(own[:, 1:].flatten(0, 1), everyone[:, 0]).view(shape)
        itself = torch.arange(first, first + len(own), device=own.device)[:, None, None]
        positive = with_texts.gather(2, itself.expand(*shape[:2], 1)).flatten(1)
        # A clip's own pairs are in both: they count once.
        others = with_videos.scatter(2, itself.expand(*shape[:2], 1), float("-inf"))
        everything = torch.cat((with_texts, others), dim=2).flatten(1)
        return (everything.logsumexp(dim=1) - positive.logsumexp(dim=1)).sum() * share
