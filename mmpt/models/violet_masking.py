"""What VIOLET's training step chooses of a batch: masks by attention, and texts that do not belong to a video.

Shapes: B batch, T frames of h x w squares, P = 1 + h * w positions of a frame, X text positions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmpt.modules.masking_visual import draw_by_score
from mmpt.utils.tokenizers import SpecialIds

__all__ = ["Masks", "choose_masks"]


class Masks(NamedTuple):
    """What is to be told: ``words`` bool (B, X), ``squares`` bool (B, T, h, w)."""

    words: Tensor
    squares: Tensor


def choose_masks(
    scores: Tensor,
    noise: Tensor,
    share: float,
    caps: Tensor,
    vmasks: Tensor,
    grid: Sequence[int],
    special: SpecialIds,
) -> Masks:
    """Choose words and squares in proportion to the attention that they receive (attended masking, section 3.2).

    Of a sample with t real frames ``int((t * P + X) * share)`` joint positions are drawn, special ones never; fewer
    where there are not so many.

    Args:
        scores: (B, T * P + X), at least 0.
        noise: of the same shape (:func:`mmpt.modules.masking_visual.selection_noise`).
        share: in [0, 1].
        caps: int64 (B, X).
        vmasks: bool (B, T), true where a frame is real.
        grid: h and w.
        special: ids that are never chosen.

    Raises:
        ValueError: if scores, noise and sizes do not fit each other.
    """
    frames, positions, words = vmasks.shape[1], 1 + grid[0] * grid[1], caps.shape[1]
    wanted = (len(caps), frames * positions + words)
    if scores.shape != wanted or noise.shape != wanted:
        raise ValueError(f"scores {tuple(scores.shape)} and noise {tuple(noise.shape)} are not of {wanted} positions")
    plain = (caps != special.cls) & (caps != special.sep) & (caps != special.pad)
    squares = vmasks[:, :, None].repeat(1, 1, positions)
    squares[:, :, 0] = False  # the [CLS] of a frame
    scores = scores * torch.cat([squares.flatten(1), plain], dim=1)
    # in double precision, as Python's int(n * share)
    counts = ((vmasks.sum(1) * positions + words).double() * share).long()
    drawn = draw_by_score(scores, counts, noise)
    by_frame = drawn[:, : frames * positions].unflatten(1, (frames, positions))
    return Masks(drawn[:, frames * positions :], by_frame[:, :, 1:].unflatten(2, tuple(grid)))
