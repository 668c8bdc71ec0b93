"""The joint sequence of MERLOT Reserve (arXiv:2201.02639, section 3.2): words, sounds and frames side by side.

Shapes: B batch, L text positions, S segments, V tokens of a segment's frame, A sounds, K tokens of a sound, H hidden,
P positions of the joint sequence.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.modules.reserve_positions import grid_coordinates
from mmpt.modules.reserve_tokens import AUDIOSPAN, PAD
from mmpt.utils.errors import DataError

__all__ = ["JointInputs", "prepare_multimodal_inputs"]

#: What a segment's number, and the place of a token, are divided by.
_SEGMENTS = 16
_POSITIONS = 1024
#: Segment of what belongs to none.
_NO_SEGMENT = -1


class JointInputs(NamedTuple):
    """``x`` (B, P, H), ``coordinates`` float32 (B, P, 4), ``mask`` bool (B, P, P): what a query (row) may see."""

    x: Tensor
    coordinates: Tensor
    mask: Tensor


def prepare_multimodal_inputs(
    tokens: Tensor,
    token_segments: Tensor | None,
    token_embeddings: Tensor,
    vision: Tensor | None = None,
    vision_grid: tuple[int, int] | None = None,
    vision_segments: Tensor | None = None,
    audio: Tensor | None = None,
    audio_pointers: Tensor | None = None,
    padding_length: int | None = None,
    sources: Tensor | None = None,
    vision_mask: Tensor | None = None,
) -> JointInputs:
    """Assemble ``[L text and audio tokens ; frame tokens, segment after segment ; padding]``.

    Args:
        tokens: int64 (B, L), padded with PAD.
        token_segments: int64 (B, L), the segment of each token; None: 0. -1 belongs to no segment.
        token_embeddings: (B, L, H) of the tokens. Those of AUDIOSPAN are replaced: the k-th of a row, from 0, becomes
            token ``k % K`` of the sound that its pointer names, so a sound stands in whole runs of K.
        vision: (B, S, V, H), the pooled frames.
        vision_grid: their (rows, columns) after pooling, rows * columns = V; with ``vision``.
        vision_segments: int64 (S,), the segments of the frames; None: 0, 1, ...
        audio: (B, A, K, H).
        audio_pointers: int64 (B, L), which sound an AUDIOSPAN is read from; negative: the first.
        padding_length: P, by default as many as there are; must not be less.
        sources: int64 (B, segments), the video that each segment is of: positions see only those of the same video
            (tokens of no segment each other).
        vision_mask: bool (B, S), false of a frame that is not to be seen.

    Raises:
        DataError: if the sequence is longer than ``padding_length``.
    """
    segments = torch.zeros_like(tokens) if token_segments is None else token_segments
    x = [_with_sounds(tokens, token_embeddings, audio, audio_pointers)]
    coordinates = [_token_coordinates(segments)]
    valid = [tokens != PAD]
    shown = [segments]
    if vision is not None:
        assert vision_grid is not None
        count, size = vision.shape[1:3]
        places = vision_segments if vision_segments is not None else torch.arange(count, device=tokens.device)
        x.append(vision.flatten(1, 2).to(token_embeddings.dtype))
        coordinates.append(_frame_coordinates(places, vision_grid).expand(len(tokens), -1, -1))
        seen = vision.new_ones(vision.shape[:2], dtype=torch.bool) if vision_mask is None else vision_mask.bool()
        valid.append(seen.repeat_interleave(size, dim=1))
        shown.append(places.repeat_interleave(size).expand(len(tokens), -1))
    length = sum(part.shape[1] for part in x)
    padding = 0 if padding_length is None else padding_length - length
    if padding < 0:
        raise DataError(f"a joint sequence of {length} positions does not fit {padding_length} (dataset.seq_len)")
    present = F.pad(torch.cat(valid, dim=1), (0, padding))
    mask = present[:, :, None] & present[:, None]
    if sources is not None:
        source = F.pad(_sources_of(torch.cat(shown, dim=1), sources), (0, padding), value=_NO_SEGMENT)
        mask &= source[:, :, None] == source[:, None]
    return JointInputs(
        F.pad(torch.cat(x, dim=1), (0, 0, 0, padding)),
        F.pad(torch.cat(coordinates, dim=1), (0, 0, 0, padding)),
        mask,
    )


def _with_sounds(tokens: Tensor, embeddings: Tensor, audio: Tensor | None, pointers: Tensor | None) -> Tensor:
    if audio is None:
        return embeddings
    is_sound = tokens == AUDIOSPAN
    count, size = audio.shape[1:3]
    number = (is_sound.cumsum(1) - 1).clamp(min=0) % size
    pointed = number.new_zeros(()) if pointers is None else pointers.clamp(0, count - 1)
    index = (pointed * size + number)[..., None].expand(-1, -1, audio.shape[-1])
    sounds = audio.flatten(1, 2).gather(1, index)
    return torch.where(is_sound[..., None], sounds.to(embeddings.dtype), embeddings)


def _token_coordinates(segments: Tensor) -> Tensor:
    """Return (row 0, column 0, segment, place) of tokens, float32 (B, L, 4)."""
    place = torch.arange(1, segments.shape[1] + 1, device=segments.device).expand_as(segments)
    nothing = torch.zeros_like(place)
    return torch.stack([nothing, nothing, segments / _SEGMENTS, place / _POSITIONS], dim=-1).float()


def _frame_coordinates(segments: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return (row, column, segment, 0) of the tokens of frames, float32 (S * V, 4)."""
    places = grid_coordinates(*grid).to(segments.device)
    shape = (len(segments), len(places))
    when = (segments.float() / _SEGMENTS)[:, None, None].expand(*shape, 1)
    return torch.cat([places.expand(*shape, 2), when, torch.zeros_like(when)], dim=-1).flatten(0, 1)


def _sources_of(segments: Tensor, sources: Tensor) -> Tensor:
    """Return the video of each position, int64 (B, P); -1 where it has no segment."""
    found = sources.gather(1, segments.clamp(0, sources.shape[1] - 1))
    return found.masked_fill(segments < 0, _NO_SEGMENT)
