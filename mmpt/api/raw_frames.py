"""Frames that a user has as arrays, brought to what systems of raw frames read.

Shapes: B videos, T frames of each, N frames that the model takes, S pixels of a side.
"""

import numpy as np
import torch
from torch import Tensor

from mmpt.processors.frame_sampling import sample_frames
from mmpt.processors.frame_transforms import FrameTransform
from mmpt.utils.errors import DataError

__all__ = ["prepare_frames"]


def prepare_frames(
    video_frames: Tensor, vmasks: Tensor | None, num_frames: int, transform: FrameTransform
) -> tuple[Tensor, Tensor]:
    """Sample and transform as a test does.

    Args:
        video_frames: (B, T, height, width, 3) RGB, uint8 or float in [0, 1].
        vmasks: (B, T), true where a frame is real; None where all are.
        num_frames: N.
        transform: makes squares of S pixels.

    Returns:
        uint8 (B, N, 3, S, S) and bool (B, N), false behind the frames of shorter videos; on the CPU.

    Raises:
        DataError: if a shape or range is wrong, or a video has no frame.
    """
    if video_frames.ndim != 5 or video_frames.shape[4] != 3:
        raise DataError(
            f"video_frames has shape {tuple(video_frames.shape)}, expected (batch, frames, height, width, 3)"
        )
    shape = video_frames.shape[:2]
    real_frames = torch.ones(shape, dtype=torch.bool) if vmasks is None else vmasks.bool().cpu()
    if real_frames.shape != shape:
        raise DataError(f"vmasks has shape {tuple(real_frames.shape)}, expected {tuple(shape)}: one value per frame")
    pixels = _bytes(video_frames)
    vfeats = np.zeros((shape[0], num_frames, 3, transform.size, transform.size), dtype=np.uint8)
    masks = np.zeros((shape[0], num_frames), dtype=bool)
    for row, (video, real) in enumerate(zip(pixels, real_frames.numpy(), strict=True)):
        if not real.any():
            raise DataError(f"video {row} of the batch has no frame")
        frames = video[real]
        chosen = sample_frames(len(frames), num_frames, None)
        vfeats[row, : len(chosen)] = transform([frames[number] for number in chosen])
        masks[row, : len(chosen)] = True
    return torch.from_numpy(vfeats), torch.from_numpy(masks)


def _bytes(frames: Tensor) -> np.ndarray:
    if frames.dtype == torch.uint8:
        return frames.cpu().numpy()
    if not frames.is_floating_point():
        raise DataError(f"video_frames is {frames.dtype}: give uint8, or floats in [0, 1]")
    if not bool(((frames >= 0) & (frames <= 1)).all()):
        raise DataError("video_frames has values outside [0, 1]: give uint8, or floats in [0, 1]")
    return (frames.float() * 255).round().to(torch.uint8).cpu().numpy()
