"""Who sees whom in the joint sequence ``[CLS] v1 .. vM [SEP] w1 .. wn [SEP] pad..`` of VLM (arXiv:2105.09996).

Pure functions of two masks: ``vmasks`` (B, M), true where a second is real, and ``cmasks`` (B, L) of the text block
``[CLS] [SEP] w1 .. wn [SEP] pad..``. The sequence has S = M + L positions; the ``[SEP]`` after the video belongs to
the video. Masks are bool with a row per query and a column per key, true where the key may be seen. Layers that use
the same mask are given the same tensor.
"""

import torch
from torch import Tensor

from mmpt.modules.packing import Segments

__all__ = [
    "isolated_mask",
    "isolated_segments",
    "joint_mask",
    "joint_token_types",
    "text_generation_mask",
    "video_generation_mask",
]


def joint_mask(vmasks: Tensor, cmasks: Tensor) -> Tensor:
    """Return the valid positions of the joint sequence, bool (B, S)."""
    return torch.cat([cmasks[:, :1].bool(), vmasks.bool(), cmasks[:, 1:].bool()], dim=1)


def joint_token_types(seconds: int, words: int, device: torch.device | None = None) -> Tensor:
    """Return token types, int64 (1, S): 0 for ``[CLS]``, the video and its ``[SEP]``, 1 for the rest.

    ``seconds`` is M, ``words`` is L.
    """
    return (torch.arange(seconds + words, device=device) > seconds + 1).long()[None]


def isolated_mask(vmasks: Tensor, cmasks: Tensor) -> Tensor:
    """Keep video and text apart, bool (B, S, S).

    ``[CLS]`` sees itself; the video and its ``[SEP]`` see the valid video and its ``[SEP]``; text positions see the
    valid text and its ``[SEP]``. Rows of padding are those of their half.
    """
    half = joint_token_types(vmasks.shape[1], cmasks.shape[1], vmasks.device)[0] + 1
    half[0] = 0
    return (half[:, None] == half[None]) & joint_mask(vmasks, cmasks)[:, None]


def isolated_segments(vmasks: Tensor, cmasks: Tensor) -> Segments:
    """Say the same of valid positions without a mask: of which part each is, int64 (B, S); 0 is padding."""
    part = joint_token_types(vmasks.shape[1], cmasks.shape[1], vmasks.device) + 2
    part[:, 0] = 1
    return Segments(part * joint_mask(vmasks, cmasks))


def text_generation_mask(vmasks: Tensor, cmasks: Tensor) -> Tensor:
    """Let text be generated from left to right after the whole video, bool (B, S, S).

    Every row sees ``[CLS]``, the valid video and its ``[SEP]``; the row of a valid text position sees the text up to
    itself too.
    """
    valid = joint_mask(vmasks, cmasks)
    is_text = joint_token_types(vmasks.shape[1], cmasks.shape[1], valid.device)[0].bool()
    position = torch.arange(valid.shape[1], device=valid.device)
    earlier = position[None] <= position[:, None]
    text = (valid & is_text)[:, :, None] & earlier & is_text
    return (text | ~is_text) & valid[:, None]


def video_generation_mask(vmasks: Tensor, cmasks: Tensor) -> Tensor:
    """Let video be generated from left to right after the whole text, bool (B, S, S).

    Every row sees ``[CLS]`` and the valid text; the row of a valid second sees the seconds up to itself too; the row
    of the video's ``[SEP]`` sees everything valid.
    """
    valid = joint_mask(vmasks, cmasks)
    seconds = vmasks.shape[1]
    position = torch.arange(valid.shape[1], device=valid.device)
    is_video = (position >= 1) & (position <= seconds)
    is_end = position == seconds + 1
    earlier = position[None] <= position[:, None]
    video = (valid & is_video)[:, :, None] & earlier & is_video
    return (video | is_end[:, None] | ~(is_video | is_end)) & valid[:, None]
