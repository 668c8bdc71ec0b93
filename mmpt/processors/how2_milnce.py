"""Aligner of MIL-NCE pre-training: a short clip and several captions near it (Miech et al., CVPR 2020, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.processors.how2_aligners import Captions, ClipSamplingAligner, ClipSamplingOptions
from mmpt.utils.errors import ConfigError
from mmpt.utils.options import read_options

__all__ = ["How2MILNCEAligner", "MILNCEOptions", "nearest_captions"]


@dataclass
class MILNCEOptions(ClipSamplingOptions):
    """``num_candidates`` captions per clip; the clip of ``num_sec`` seconds lies within at least ``min_time`` seconds.

    A clip takes the whole seconds of ``num_sec``: 3.2, 16 frames at 5 per second, are three features.
    """

    num_candidates: int = 4
    min_time: float = 5.0
    num_sec: float = 3.2


class How2MILNCEAligner(ClipSamplingAligner):
    """Sample K = ``clip_per_video`` (else ``subsampling``) clips of a video, each with its nearest captions.

    Around a caption, drawn uniformly, its time is widened to ``min_time`` seconds; the clip lies at random inside.
    The candidates are the ``num_candidates`` neighbouring captions around it that together last shortest; a video
    with fewer has its last one repeated.

    Calling it gives ``caps`` int64 and ``cmasks`` bool ``(K, num_candidates, max_len - max_video_len)``, ``vfeats``
    float32 ``(K, max_video_len, dim)``, ``vmasks`` bool ``(K, max_video_len)``; ``video_start``/``video_end`` and
    ``text_start``/``text_end`` int64 ``(K,)`` and ``video_id`` as :class:`ClipSamplingAligner` does.

    Raises:
        ConfigError: if an option cannot be used; names the key.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": MILNCEOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        options = read_options(config, MILNCEOptions)
        if options.num_candidates < 1:
            raise ConfigError(f"dataset.num_candidates: {options.num_candidates} is not at least 1")
        if not 1 <= options.num_sec < self.max_video_len + 1:
            raise ConfigError(f"dataset.num_sec: {options.num_sec} is not in 1..max_video_len {self.max_video_len}")
        if not options.min_time >= 0:
            raise ConfigError(f"dataset.min_time: {options.min_time} is not at least 0")
        self.num_candidates, self.min_time, self.num_sec = options.num_candidates, options.min_time, options.num_sec

    def _sample(
        self, rng: np.random.Generator, captions: Captions, features: Sequence[np.ndarray], video_lens: np.ndarray
    ) -> dict[str, torch.Tensor]:
        """Draw ``clips_per_video`` clips from each video; first dimension N = videos x clips_per_video."""
        low, high, video_len = (
            np.repeat(each, self.clips_per_video) for each in (captions.low, captions.high, video_lens)
        )
        center = rng.integers(low, high)
        first = nearest_captions(center, low, high, captions.start, captions.end, self.num_candidates)
        candidates = np.minimum(first[:, None] + np.arange(self.num_candidates), high[:, None] - 1)
        flat = candidates.reshape(-1)
        caps, cmasks = self._gather_text(captions.tokens, captions.offsets[flat], captions.offsets[flat + 1])
        start, end = self._draw_clips(rng, captions.start[center], captions.end[center], video_len)
        vfeats, vmasks = self._gather_video(features, start, end)
        arrays = {"caps": caps.reshape(*candidates.shape, -1), "cmasks": cmasks.reshape(*candidates.shape, -1)}
        arrays |= {"vfeats": vfeats, "vmasks": vmasks, "video_start": start, "video_end": end}
        arrays |= {"text_start": captions.index[first], "text_end": captions.index[candidates[:, -1]] + 1}
        return {key: torch.from_numpy(value) for key, value in arrays.items()}

    def _draw_clips(
        self, rng: np.random.Generator, start: np.ndarray, end: np.ndarray, video_len: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw a clip near each caption: ``[start, end)`` in whole seconds, int64 ``(N,)`` each, inside the video.

        Args:
            start, end: seconds of the captions ``(N,)``, with start < video_len.
        """
        missing = np.maximum(self.min_time - (end - start), 0.0)
        window = np.maximum(start - missing / 2, 0.0)
        window_end = np.where(missing > 0, window + self.min_time, end)
        length = np.minimum(int(self.num_sec), video_len)
        # The window may reach beyond the features: the clip does not.
        last = video_len - length
        low = np.clip(np.floor(window), 0, last).astype(np.int64)
        high = np.clip(np.floor(np.floor(window_end) - self.num_sec), low, last).astype(np.int64)
        begin = rng.integers(low, high, endpoint=True)
        return begin, begin + length


def nearest_captions(
    center: np.ndarray, low: np.ndarray, high: np.ndarray, start: np.ndarray, end: np.ndarray, count: int
) -> np.ndarray:
    """Return the first of the ``count`` neighbouring captions around each centre, int64 ``(N,)``.

    A run grows from its centre by the neighbour with which it lasts shortest, on a tie the right one; at a border of
    the video by the other one. Where a video has fewer captions than ``count``, the first is the video's first.

    Args:
        center, low, high: int ``(N,)``; centre caption and bounds of its video, ``low <= center < high``.
        start, end: seconds of every caption ``(C,)``.
    """
    first, last = center.copy(), center.copy()
    for _ in range(count - 1):
        can_left, can_right = first > low, last + 1 < high
        with_left = end[last] - start[np.maximum(first - 1, 0)]
        with_right = end[np.minimum(last + 1, len(end) - 1)] - start[first]
        left = can_left & (~can_right | (with_left < with_right))
        first -= left
        last += can_right & ~left
    return first
