"""Which texts a video is compared with where every pair is fused.

Shapes: B batch, O texts that a video is compared with, its own first.
"""

import torch
from torch import Tensor

__all__ = ["in_batch_negatives", "of_same_video"]


def in_batch_negatives(batch: int, texts: int, device: torch.device | str = "cpu") -> Tensor:
    """Return rows of other texts of the batch for each video, the next ones in turn: int64 (B, min(B, texts) - 1)."""
    steps = torch.arange(1, max(min(batch, texts), 1), device=device)
    return (torch.arange(batch, device=device)[:, None] + steps) % max(batch, 1)


def of_same_video(negatives: Tensor, video_key: Tensor | None) -> Tensor:
    """Tell which texts are of the same video beside its own, and so no negatives of it: bool (B, O), column 0 false.

    A batch holds a video twice where it has several texts, or where it stands in for one that is unusable.

    Args:
        negatives: int64 (B, O - 1), rows of other texts.
        video_key: int64 (B,), equal for items of the same video; None: all are different.
    """
    if video_key is None:
        same = torch.zeros_like(negatives, dtype=torch.bool)
    else:
        key = video_key.reshape(-1)
        same = key[negatives] == key[:, None]
    return torch.nn.functional.pad(same, (1, 0), value=False)
