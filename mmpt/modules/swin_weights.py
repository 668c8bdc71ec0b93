"""Published weights of Swin for a :class:`~mmpt.modules.video_swin.VideoSwin`: of videos, or of images, inflated."""

import logging
import os
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.modules.video_swin import PATCH, VideoSwin
from mmpt.utils.checkpoint import LoadReport, load_into
from mmpt.utils.errors import CheckpointError
from mmpt.utils.weight_files import load_state_dict_file

__all__ = ["inflate", "load_swin"]

logger = logging.getLogger(__name__)

_PREFIX = "backbone."
# Heads of the classifications that the files were trained with.
_HEADS = ("cls_head.", "head.")
_BIAS = "relative_position_bias_table"
_CONSTANTS = ("relative_position_index", "attn_mask")
_PROJECTION = "patch_embed.proj.weight"


def load_swin(swin: VideoSwin, path: str | os.PathLike[str]) -> LoadReport:
    """Load a file of Video Swin (``state_dict`` with ``backbone.``, or flat) or of the image Swin (``model``).

    Weights of images are inflated (:func:`inflate`). Heads are left out.

    Raises:
        CheckpointError: if the file cannot be read, or holds weights of other sizes.
    """
    state = {key.removeprefix(_PREFIX): value for key, value in load_state_dict_file(path).items()}
    state = {key: value for key, value in state.items() if not key.startswith(_HEADS)}
    projection = state.get(_PROJECTION)
    if projection is None:
        raise CheckpointError(f"{path}: has no {_PROJECTION}: these are not the weights of a Swin transformer")
    if projection.dim() == 4:
        state = inflate(state, swin.options.window)
        logger.info("%s: weights of images, inflated to %d frames", path, PATCH[0])
    state = {key: value for key, value in state.items() if not key.endswith(_CONSTANTS)}
    return load_into(swin, state, allow_missing=("*.relative_position_index",), source=str(path))


def inflate(state: Mapping[str, Tensor], window: tuple[int, int, int]) -> dict[str, Tensor]:
    """Make the weights of an image Swin those of a video Swin (arXiv:2106.13230, section 3.3).

    The patch projection is repeated over the frames of a patch and divided by their number; the bias of an offset in
    space is that of every offset in time. A table for windows of another size is resized bicubically.

    Args:
        state: with a projection (C, 3, 4, 4) and tables (offsets in space, heads).
        window: frames, rows and columns of the windows to come.
    """
    inflated: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == _PROJECTION:
            inflated[key] = value[:, :, None].repeat(1, 1, PATCH[0], 1, 1) / PATCH[0]
        elif key.endswith(_BIAS):
            inflated[key] = _in_space(value, window[1:]).repeat(2 * window[0] - 1, 1)
        elif not key.endswith(_CONSTANTS):
            inflated[key] = value
    return inflated


def _in_space(table: Tensor, window: tuple[int, int]) -> Tensor:
    """Return a table (offsets, heads) for windows of that many rows and columns."""
    rows, columns = 2 * window[0] - 1, 2 * window[1] - 1
    side = round(len(table) ** 0.5)
    if len(table) == rows * columns:
        return table
    square = table.T.view(1, -1, side, side)
    resized = F.interpolate(square.float(), size=(rows, columns), mode="bicubic", align_corners=False)
    return resized.view(-1, rows * columns).T.contiguous().to(torch.float32)
