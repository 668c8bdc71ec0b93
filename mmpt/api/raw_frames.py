"""Frames that a user has as arrays, brought to what systems of raw frames read.

Shapes: B videos, T frames of each, N frames that the model takes, (H, W) pixels of a frame.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.models.merlot_base import MERLOTBase
from mmpt.models.reserve_base import ReserveModel
from mmpt.processors.frame_base import FrameAlignerOptions
from mmpt.processors.frame_sampling import sample_frames
from mmpt.processors.frame_transforms import FrameTransform
from mmpt.processors.merlot_pretraining import MERLOTPretrainingAlignerOptions
from mmpt.processors.oblong_frames import OblongFrames, merlot_frames, reserve_frames
from mmpt.processors.reserve_pretraining import ReservePretrainingAlignerOptions
from mmpt.utils.errors import DataError
from mmpt.utils.options import read_section, section_of

__all__ = ["FrameInput", "frame_bytes", "frame_input", "inner_points", "middles", "prepare_frames"]


def middles(count: int) -> list[float]:
    """Return where the middles of ``count`` equal parts of a video are, from 0 to 1."""
    return [(number + 0.5) / count for number in range(count)]


def inner_points(count: int) -> list[float]:
    """Return the ends of ``count`` + 1 equal parts but the last, from 0 to 1: what extraction stores of a video."""
    return [(number + 1) / (count + 1) for number in range(count)]


class FrameInput(NamedTuple):
    """What a model takes of a video.

    Attributes:
        frames: N, or all of a video that has fewer.
        size: (H, W).
        transform: makes frames of a list of pictures.
        places: where they are taken, given how many.
    """

    frames: int
    size: tuple[int, int]
    transform: Callable[[Sequence[np.ndarray]], np.ndarray]
    places: Callable[[int], list[float]] = middles


def frame_input(config: Any, model: nn.Module) -> FrameInput:
    """Return what a model that reads frames takes, as the ``dataset`` of its job says.

    VIOLET and LAVENDER: ``num_frames`` squares, from where extraction takes as many; MERLOT: ``num_chunks`` frames of
    ``image_size``; MERLOT Reserve: a frame for each segment that its joint encoder sees together, of ``image_grid``.

    Raises:
        ConfigError: if a size cannot be.
    """
    section = section_of(config, "dataset") or {}
    if isinstance(model, MERLOTBase):
        return _oblong(
            read_section(config, "dataset", MERLOTPretrainingAlignerOptions).num_chunks, merlot_frames(section)
        )
    if isinstance(model, ReserveModel):
        segments = read_section(config, "dataset", ReservePretrainingAlignerOptions)
        return _oblong(segments.num_segments // segments.num_segment_groups, reserve_frames(section))
    frames = read_section(config, "dataset", FrameAlignerOptions)
    size = frames.image_size
    return FrameInput(frames.num_frames, (size, size), FrameTransform(frames.image_transform, size), inner_points)


def _oblong(count: int, frames: OblongFrames) -> FrameInput:
    return FrameInput(count, frames.size, lambda images: np.stack([frames.transform(image) for image in images]))


def prepare_frames(video_frames: Tensor, vmasks: Tensor | None, wanted: FrameInput) -> tuple[Tensor, Tensor]:
    """Sample and transform as a test does.

    Args:
        video_frames: (B, T, height, width, 3) RGB, uint8 or float in [0, 1]; or (B, seconds, fps, height, width, 3).
        vmasks: (B, T), true where a frame is real, or (B, seconds); None where all are.
        wanted: what the model takes.

    Returns:
        uint8 (B, N, 3, H, W) and bool (B, N), false behind the frames of shorter videos; on the CPU.

    Raises:
        DataError: if a shape or range is wrong, or a video has no frame.
    """
    if video_frames.ndim == 6:
        if vmasks is not None and vmasks.shape == video_frames.shape[:2]:
            vmasks = vmasks.repeat_interleave(video_frames.shape[2], dim=1)
        video_frames = video_frames.flatten(1, 2)
    if video_frames.ndim != 5 or video_frames.shape[4] != 3:
        raise DataError(
            f"video_frames has shape {tuple(video_frames.shape)}, expected (batch, frames, height, width, 3)"
        )
    shape = video_frames.shape[:2]
    real_frames = torch.ones(shape, dtype=torch.bool) if vmasks is None else vmasks.bool().cpu()
    if real_frames.shape != shape:
        raise DataError(f"vmasks has shape {tuple(real_frames.shape)}, expected {tuple(shape)}: one value per frame")
    pixels = frame_bytes(video_frames)
    vfeats = np.zeros((shape[0], wanted.frames, 3, *wanted.size), dtype=np.uint8)
    masks = np.zeros((shape[0], wanted.frames), dtype=bool)
    for row, (video, real) in enumerate(zip(pixels, real_frames.numpy(), strict=True)):
        if not real.any():
            raise DataError(f"video {row} of the batch has no frame")
        frames = video[real]
        chosen = sample_frames(len(frames), wanted.frames, None)
        vfeats[row, : len(chosen)] = wanted.transform([frames[number] for number in chosen])
        masks[row, : len(chosen)] = True
    return torch.from_numpy(vfeats), torch.from_numpy(masks)


def frame_bytes(frames: Tensor | np.ndarray, name: str = "video_frames") -> np.ndarray:
    """Return frames of any shape as uint8, on the CPU; ``name`` is what errors call them.

    Raises:
        DataError: unless they are uint8, or floats in [0, 1].
    """
    if isinstance(frames, np.ndarray) and frames.dtype.kind not in "uif":
        raise DataError(f"{name}: {frames.dtype}, give uint8, or floats in [0, 1]")
    given = torch.as_tensor(frames)
    if given.dtype == torch.uint8:
        return given.cpu().numpy()
    if not given.is_floating_point():
        raise DataError(f"{name}: {given.dtype}, give uint8, or floats in [0, 1]")
    if not bool(((given >= 0) & (given <= 1)).all()):
        raise DataError(f"{name}: has values outside [0, 1]; give uint8, or floats in [0, 1]")
    return (given.float() * 255).round().to(torch.uint8).cpu().numpy()
