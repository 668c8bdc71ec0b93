"""Videos as MERLOT Reserve takes them (arXiv:2201.02639): segments, patches of frames, spectrograms, tokens.

The functions and their keys are those of the published demo; numbers come as torch tensors. Sound and spectrograms are
made as in training, and a video without an audio stream has segments whose ``spectrogram`` is None.

Shapes: S segments, (h, w) the grid of patches of 16 pixels, L = 160 tokens.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpt.api.reserve_video_segments import (
    extract_frames_from_video,
    video_to_segments,
    video_to_segments_for_action_segmentation,
    video_to_segments_zero_shot,
)
from mmpt.modules.reserve_tokens import AUDIO_TOKENS, AUDIOSPAN, PAD, PATCH, SOUNDS
from mmpt.modules.reserve_towers import MELS, patches_of
from mmpt.processors.segment_images import fit_antialiased
from mmpt.store.spectrogram import invert_spectrogram, make_spectrogram
from mmpt.utils.errors import DataError

__all__ = [
    "AUDIO_TOKENS",
    "MAX_SEGMENTS",
    "MAX_TOKENS",
    "SOUNDS",
    "extract_frames_from_video",
    "invert_spectrogram",
    "load_tokenizer",
    "make_spectrogram",
    "preprocess_image_to_patches",
    "preprocess_video",
    "video_to_segments",
    "video_to_segments_for_action_segmentation",
    "video_to_segments_zero_shot",
]

logger = logging.getLogger(__name__)

#: What the joint transformer was trained with.
MAX_SEGMENTS, MAX_TOKENS = 8, 160
_BLOCK_FRAMES = 60


def load_tokenizer(tokenizer: Any) -> Any:
    """Return what has ``encode(text) -> list[int]``, read from a path (``lowercase_encoder.json``) if need be.

    Raises:
        DataError: if there is neither; says what to give.
    """
    if tokenizer is None:
        raise DataError("text needs Reserve's tokenizer: give tokenizer=, the path of its lowercase_encoder.json")
    if not isinstance(tokenizer, str | os.PathLike):
        return tokenizer
    from mmpt.utils.subwords import load_subwords

    return load_subwords(str(tokenizer))


def preprocess_image_to_patches(
    image: np.ndarray | Tensor | Any, output_grid_size: tuple[int, int] = (18, 32)
) -> Tensor:
    """Scale an image to fit into a grid of patches, its aspect kept, and cut it; what is left is black.

    Args:
        image: RGB, (height, width, 3), uint8 or float in [0, 1], or a Pillow image.
        output_grid_size: (h, w).

    Returns:
        float32 (h * w, 768) in [0, 1]: patches in raster order, flattened by row, column, channel.

    Raises:
        DataError: if it is not an RGB image.
    """
    if hasattr(image, "convert"):  # Pillow's
        image = np.array(image.convert("RGB"))
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise DataError(f"an image of shape {pixels.shape}: expected (height, width, 3)")
    height, width = (PATCH * side for side in output_grid_size)
    return patches_of(fit_antialiased(pixels, height, width))


def preprocess_video(
    video_segments: Sequence[Mapping[str, Any]],
    output_grid_size: tuple[int, int] = (18, 32),
    verbose: bool = False,
    tokenizer: Any = None,
) -> dict[str, Tensor | None]:
    """Turn up to eight segments into what :meth:`PretrainedMerlotReserve.embed_video` takes.

    A segment is read as text if it has a ``text`` (unless ``use_text_as_input`` is false), else as sound, 18 tokens of
    it, else (no ``spectrogram``) not at all. Write a mask with no space before it: ``"i'll be<|MASK|>"``.

    Args:
        video_segments: mappings with ``frame`` (an image as of :func:`preprocess_image_to_patches`), ``spectrogram``
            (3, 60, 65) or None, and optionally ``text`` and ``use_text_as_input``.
        output_grid_size: (h, w), that of the model.
        verbose: log what is read of each segment.
        tokenizer: a path or what :func:`load_tokenizer` returns; needed where there is text.

    Returns:
        ``images`` float32 (S, h * w, 768); ``audio_clips`` float32 (3 S, 60, 65), zero where a segment is read as text,
        None if no segment is read as sound; ``tokens`` int64 (160,), padded with 0; ``subseg_idxs`` int64 (160,): three
        to a segment, that of text is the first, -1 at padding.

    Raises:
        DataError: if there are no segments, or more than eight.
    """
    if not 1 <= len(video_segments) <= MAX_SEGMENTS:
        raise DataError(f"{len(video_segments)} segments: the model was trained with 1 to {MAX_SEGMENTS}")
    tokens: list[int] = []
    subsegments: list[int] = []
    clips = torch.zeros(len(video_segments), SOUNDS, _BLOCK_FRAMES, MELS)
    heard = False
    encoder = None
    for number, segment in enumerate(video_segments):
        first = SOUNDS * number
        text = segment.get("text")
        if text is not None and segment.get("use_text_as_input", True):
            encoder = encoder or load_tokenizer(tokenizer)
            words = list(encoder.encode(text))
            tokens += words
            subsegments += [first] * len(words)
        elif segment.get("spectrogram") is not None:
            clips[number] = torch.as_tensor(segment["spectrogram"])
            heard = True
            tokens += [AUDIOSPAN] * (SOUNDS * AUDIO_TOKENS)
            subsegments += [first + sound for sound in range(SOUNDS) for _ in range(AUDIO_TOKENS)]
        if verbose:
            logger.info(
                "segment %d: %s", number, f"text {text!r}" if subsegments[-1:] == [first] else "sound or nothing"
            )
    if len(tokens) > MAX_TOKENS:
        logger.warning("%d tokens: those behind the first %d are left out", len(tokens), MAX_TOKENS)
    return {
        "images": torch.stack(
            [preprocess_image_to_patches(segment["frame"], output_grid_size) for segment in video_segments]
        ),
        "audio_clips": clips.flatten(0, 1) if heard else None,
        "tokens": _padded(tokens, PAD),
        "subseg_idxs": _padded(subsegments, -1),
    }


def _padded(values: Sequence[int], padding: int) -> Tensor:
    row = torch.full((MAX_TOKENS,), padding, dtype=torch.long)
    kept = torch.tensor(list(values)[:MAX_TOKENS], dtype=torch.long)
    row[: len(kept)] = kept
    return row
