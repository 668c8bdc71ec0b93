"""Which texts a video is compared with where every pair is fused: some of a batch, or all."""

import torch
from torch import Tensor

__all__ = ["all_pairs", "candidate_texts"]


def candidate_texts(batch: int, negatives: int, device: torch.device | None = None) -> Tensor:
    """Return the texts that each video of a batch is compared with, int64 (batch, O): first its own, then others.

    The others are those of the next videos of the batch, the first following on the last: batches are shuffled, so
    that this is as random as drawing them, and every text is a negative equally often. O is 1 + ``negatives``, or
    ``batch`` where that is less.
    """
    rows, steps = torch.arange(batch, device=device), torch.arange(min(1 + negatives, batch), device=device)
    return (rows[:, None] + steps) % max(batch, 1)


def all_pairs(batch: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return rows of videos and rows of texts, int64 (batch * batch,) each: video by video, with every text."""
    rows = torch.arange(batch, device=device)
    return rows.repeat_interleave(batch), rows.repeat(batch)
