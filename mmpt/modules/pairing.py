"""Which texts a video is compared with where every pair is fused."""

import torch
from torch import Tensor

__all__ = ["in_batch_negatives"]


def in_batch_negatives(batch: int, texts: int, device: torch.device | str = "cpu") -> Tensor:
    """Return rows of other texts of the batch for each video, the next ones in turn: int64 (B, min(B, texts) - 1)."""
    steps = torch.arange(1, max(min(batch, texts), 1), device=device)
    return (torch.arange(batch, device=device)[:, None] + steps) % max(batch, 1)
