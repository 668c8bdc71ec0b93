"""Multiple choice: a text for each option, or one text that holds all of them.

Shapes: B questions, each about one video, O options, X text positions.
"""

import torch
from torch import Tensor

from mmpt.models.base import VideoTextModel
from mmpt.models.cross_modal import States
from mmpt.utils.errors import ConfigError, DataError

__all__ = ["hide_missing_options", "pair_options", "scores_of_listed_options"]


def pair_options(
    model: VideoTextModel,
    caps: Tensor,
    cmasks: Tensor,
    vfeats: Tensor,
    vmasks: Tensor,
    **pretext: Tensor | None,
) -> tuple[States, States]:
    """Encode B videos, each once, and their B * O texts; return them pair by pair, question by question.

    Args:
        model: encodes to :class:`~mmpt.models.cross_modal.States`.
        caps: int64 (B, O, X) or (B * O, X), with ``cmasks``.
        vfeats: frames (B, T, 3, S, S), with ``vmasks``.
        pretext: further arguments of ``encode_text``, a row for each text.

    Raises:
        DataError: if the questions have unlike numbers of options.
    """
    texts, masks, videos = caps.flatten(0, -2), cmasks.flatten(0, -2), len(vfeats)
    if not videos or len(texts) % videos:
        raise DataError(f"{len(texts)} options for {videos} questions: every question needs equally many")
    rows = torch.arange(videos, device=caps.device).repeat_interleave(len(texts) // videos)
    video = model.encode_video(vfeats, vmasks).rows(rows)
    return video, model.encode_text(texts, masks, **pretext)


def hide_missing_options(scores: Tensor, option_mask: Tensor | None) -> Tensor:
    """Return scores (B, O) with -inf where the mask, bool (B, O) or (B * O,), says that there is no option."""
    return scores if option_mask is None else scores.masked_fill(~option_mask.bool().view_as(scores), -torch.inf)


def scores_of_listed_options(scores: Tensor, option_mask: Tensor | None, key: str) -> Tensor:
    """Return the scores of the options that questions have, (B, O) of (B, C), -inf where one has fewer.

    Args:
        scores: (B, C), of as many options as a head has outputs.
        option_mask: bool (B, O), true for those that there are; None: all C.
        key: of the config, that says C.

    Raises:
        ConfigError: if O is more than C.
    """
    if option_mask is None:
        return scores
    mask = option_mask.view(len(scores), -1)
    if mask.shape[1] > scores.shape[1]:
        raise ConfigError(f"{key}: {scores.shape[1]}, but questions have {mask.shape[1]} options")
    return hide_missing_options(scores[:, : mask.shape[1]], mask)
