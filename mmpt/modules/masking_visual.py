"""Which squares of frames, and which words beside them, a model must tell (VIOLET, arXiv:2111.12681, section 3.2).

Blockwise masking looks at no content: pure functions of an explicit generator. Attended masking draws positions of the
joint sequence in proportion to the attention that they receive, with noise that comes with the item: what an item is
does not depend on the batch that it is in.

Shapes: B batch, T frames, h x w squares of a frame, L joint positions, S pixels of a side.
"""

import numpy as np
import torch
from torch import Tensor

__all__ = ["draw_by_score", "hide_squares", "mask_blocks", "selection_noise"]


def mask_blocks(rng: np.random.Generator, frames: int, rows: int, columns: int) -> np.ndarray:
    """Mask the union of as many cuboids as there are frames: bool (frames, rows, columns).

    Each cuboid is 1 to ``frames - 1`` frames long (1 of a single one), 1 to ``2 * rows // 3 - 1`` rows high and 1 to
    ``2 * columns // 3 - 1`` columns wide, all equally likely, and lies anywhere. Of 7 x 7 squares and 1, 2, 4, 5 frames
    it masks 8.2, 7.9, 15.2, 18.4 % on average.
    """
    masked = np.zeros((frames, rows, columns), dtype=bool)
    whole = np.array(masked.shape)
    longest = np.maximum([frames - 1, 2 * rows // 3 - 1, 2 * columns // 3 - 1], 1)
    for extent in rng.integers(1, longest + 1, size=(frames, 3)):
        start = rng.integers(0, whole - extent + 1)
        masked[tuple(slice(first, first + length) for first, length in zip(start, extent, strict=True))] = True
    return masked


def selection_noise(rng: np.random.Generator, positions: int) -> np.ndarray:
    """Draw the noise by which :func:`draw_by_score` is random: float32 (positions,), of the standard Gumbel law."""
    return rng.gumbel(size=positions).astype(np.float32)


def draw_by_score(scores: Tensor, counts: Tensor, noise: Tensor) -> Tensor:
    """Draw positions without replacement, each next one in proportion to the scores of those that are left.

    The largest of ``log(score) + noise`` are such a draw (Gumbel top-k; Kool et al. 2019, arXiv:1903.06059).

    Args:
        scores: (B, L), at least 0; a position of score 0 is never drawn.
        counts: how many to draw of each row, int64 (B,); where a row has fewer that can be drawn, all of them.
        noise: (B, L), of :func:`selection_noise`.

    Returns:
        bool (B, L).
    """
    drawable = scores > 0
    keys = (scores.float().log() + noise.float()).masked_fill(~drawable, -torch.inf)
    places = keys.argsort(dim=1, descending=True).argsort(dim=1)
    return (places < counts[:, None]) & drawable


def hide_squares(frames: Tensor, squares: Tensor) -> Tensor:
    """Return a copy of frames (B, T, 3, S, S) that is black where ``squares``, bool (B, T, h, w), are true.

    A square has S / h x S / w pixels.

    Raises:
        ValueError: if these are no whole numbers.
    """
    height, width = frames.shape[-2:]
    rows, columns = squares.shape[-2:]
    if height % rows or width % columns:
        raise ValueError(f"frames of {height} x {width} pixels are not {rows} x {columns} equal squares")
    hidden = squares.repeat_interleave(height // rows, 2).repeat_interleave(width // columns, 3)
    return frames.masked_fill(hidden[:, :, None], 0)
