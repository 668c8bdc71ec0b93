"""Aligners of How2 pre-training: many text runs and video clips sampled from a video or a group of videos.

One class covers the public names (spec: VideoCLIP, EMNLP 2021, section 4):

    name                          text_length  video_clip  center   grouped
    FixedLenAligner               fixed        text_span   uniform  no
    VariedLenAligner              varied       text_span   uniform  no
    StartClipAligner              fixed        text_span   first    no
    OverlappedAligner             varied       overlapped  uniform  no
    VideoRetriAligner             varied       text_span   uniform  yes
    VideoRetriOverlappedAligner   varied       overlapped  uniform  yes
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from mmpt.processors.base import Aligner, AlignerOptions, UnusableItemError, video_name
from mmpt.processors.sampling import (
    TextClips,
    center_seconds,
    grow_text_runs,
    grow_video_clips,
    kept_words,
    pass_over,
    span_clips,
    usable_clips,
)
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_options

__all__ = ["Captions", "ClipSamplingAligner", "ClipSamplingOptions"]

logger = logging.getLogger(__name__)


@dataclass
class ClipSamplingOptions(AlignerOptions):
    """Samples per video (``clip_per_video``, else ``subsampling``) and their lengths in word pieces and seconds.

    A caption beside a growing text run is taken with probability ``keep_prob``, in (0, 1].
    """

    subsampling: int | None = None
    clip_per_video: int | None = None
    sampled_min_len: int | None = None
    sampled_max_len: int | None = None
    sampled_video_min_len: int | None = None
    sampled_video_max_len: int | None = None
    keep_prob: float = 1.0


@dataclass
class Captions:
    """Captions of V videos laid end to end: ``low``/``high`` int64 (V,) bounds, the rest (C,) or flat tokens."""

    low: np.ndarray
    high: np.ndarray
    start: np.ndarray
    end: np.ndarray
    index: np.ndarray  # position of a caption in its video's own list
    offsets: np.ndarray  # (C + 1,) into tokens
    tokens: np.ndarray


class ClipSamplingAligner(Aligner):
    """Sample K pairs of a text run and a video clip from each video.

    Args:
        config: the ``dataset`` section.
        text_length: word limit of a run; all that fit, or uniform in ``sampled_min_len..sampled_max_len``.
        video_clip: the seconds that the run spans, or a clip of ``sampled_video_min_len..sampled_video_max_len``
            seconds around a second inside the run.
        center: caption that a run grows from, uniform or the video's first.
        grouped: an item is a group of V videos.

    Calling it gives ``caps`` int64 and ``cmasks`` bool ``(K, max_len - max_video_len)``, ``vfeats`` float32
    ``(K, max_video_len, dim)``, ``vmasks`` bool ``(K, max_video_len)``; int64 ``(K,)``: ``video_start``/``video_end``,
    the seconds ``[start, end)`` that vfeats holds, and ``text_start``/``text_end``, the captions ``[start, end)``;
    ``video_id`` str. Grouped: ``(V, K, ..)`` and a list of V ids.

    Captions that end before they begin or begin after the video's features end are left out, and so are videos of a
    group without another caption; both are counted (``dropped_captions``, ``dropped_videos``).
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": ClipSamplingOptions}

    def __init__(
        self,
        config: Any,
        *,
        text_length: Literal["fixed", "varied"] = "fixed",
        video_clip: Literal["text_span", "overlapped"] = "text_span",
        center: Literal["uniform", "first"] = "uniform",
        grouped: bool = False,
    ) -> None:
        super().__init__(config)
        for name, value, known in (
            ("text_length", text_length, ("fixed", "varied")),
            ("video_clip", video_clip, ("text_span", "overlapped")),
            ("center", center, ("uniform", "first")),
        ):
            if value not in known:
                raise ConfigError(f"{name} {value!r} is none of {', '.join(known)}")
        options = read_options(config, ClipSamplingOptions)
        self.center, self.grouped = center, grouped
        self.clips_per_video = options.clip_per_video or options.subsampling or 0
        if self.clips_per_video < 1:
            raise ConfigError("dataset.clip_per_video or dataset.subsampling: one of them must be at least 1")
        if not 0.0 < options.keep_prob <= 1.0:
            raise ConfigError(f"dataset.keep_prob: {options.keep_prob} is not in (0, 1]")
        self.keep_prob = options.keep_prob
        self.text_lengths: tuple[int, int] | None = None
        self.video_lengths: tuple[int, int] | None = None
        if text_length == "varied":
            self.text_lengths = _length_range(options, "sampled_min_len", "sampled_max_len")
        if video_clip == "overlapped":
            self.video_lengths = _length_range(options, "sampled_video_min_len", "sampled_video_max_len")
            if self.video_lengths[1] > self.max_video_len:
                raise ConfigError(
                    f"dataset.sampled_video_max_len {self.video_lengths[1]} exceeds max_video_len {self.max_video_len}"
                )
        self.dropped_captions = 0
        self.dropped_videos = 0

    def __call__(
        self, video_id: Any, video_feature: Any, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return the sampled pairs of a video, or of a group of videos given as three lists.

        Raises:
            UnusableItemError: if no video has a caption that begins inside its features; names the video.
            DataError: if features are not ``(seconds, dim)`` or differ in dim, or a token id is outside the
                vocabulary; names the video.
        """
        rng = np.random.default_rng() if rng is None else rng
        ids, features, texts = (
            (video_id, video_feature, text_feature) if self.grouped else ([video_id], [video_feature], [text_feature])
        )
        names = [video_name(one) for one in ids]
        if not names:
            raise UnusableItemError("a group of no videos")
        _check_features(names, features)
        video_lens = np.array([len(feature) for feature in features], dtype=np.int64)
        captions, usable = self._collect(names, video_lens, texts)
        if not usable.all():
            names = [name for name, keep in zip(names, usable, strict=True) if keep]
            features = [feature for feature, keep in zip(features, usable, strict=True) if keep]
            video_lens = video_lens[usable]
        item = self._sample(rng, captions, features, video_lens)
        videos = (len(names),) if self.grouped else ()
        shaped = {key: value.reshape(*videos, self.clips_per_video, *value.shape[1:]) for key, value in item.items()}
        return {**shaped, "video_id": names if self.grouped else names[0]}

    def _collect(
        self, names: Sequence[str], video_lens: np.ndarray, texts: Sequence[Any]
    ) -> tuple[Captions, np.ndarray]:
        """Lay usable captions end to end; also return which videos have any, bool ``(V,)``."""
        try:
            clips = [TextClips.of(text) for text in texts]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"captions of {', '.join(names[:3])}: expected start, end and cap lists ({error})"
            ) from error
        counts = np.array([clip.count for clip in clips], dtype=np.int64)
        start, end, tokens = (
            np.concatenate([getattr(clip, key) for clip in clips]) for key in ("start", "end", "tokens")
        )
        lengths = np.concatenate([np.diff(clip.offsets) for clip in clips])
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocab_size:
            raise self._foreign_tokens(names, clips)
        index = np.arange(len(start)) - np.repeat(np.cumsum(counts) - counts, counts)
        keep = usable_clips(start, end, np.repeat(video_lens, counts))
        if not keep.all():
            owner = np.repeat(np.arange(len(counts)), counts)[keep]
            tokens = tokens[np.repeat(keep, lengths)]
            self._count_dropped(int(np.count_nonzero(~keep)), names)
            start, end, lengths, index = start[keep], end[keep], lengths[keep], index[keep]
            counts = np.bincount(owner, minlength=len(counts))
        usable = counts > 0
        if not usable.all():
            self.dropped_videos += int(np.count_nonzero(~usable))
        counts = counts[usable]
        if not counts.size:
            raise UnusableItemError(f"{', '.join(names[:3])}: no caption begins inside the video")
        offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths)))
        high = np.cumsum(counts)
        return Captions(high - counts, high, start, end, index, offsets, tokens), usable

    def _foreign_tokens(self, names: Sequence[str], clips: Sequence[TextClips]) -> DataError:
        """Return the error that says which video has ids that the tokenizer does not."""
        outside = {
            name: clip.tokens[(clip.tokens < 0) | (clip.tokens >= self.vocab_size)]
            for name, clip in zip(names, clips, strict=True)
        }
        name, wrong = next((name, ids[0]) for name, ids in outside.items() if ids.size)
        return DataError(
            f"captions of video {name}: token id {wrong}, but dataset.bert_name {self.bert_name!r} has "
            f"{self.vocab_size} tokens: were the captions tokenised with another one?"
        )

    def _count_dropped(self, number: int, names: Sequence[str]) -> None:
        if not self.dropped_captions:
            logger.warning(
                "leaving out captions that end before they begin or begin after the video ends (first met in %s)",
                ", ".join(names[:3]),
            )
        self.dropped_captions += number

    def _sample(
        self, rng: np.random.Generator, captions: Captions, features: Sequence[np.ndarray], video_lens: np.ndarray
    ) -> dict[str, torch.Tensor]:
        """Draw ``clips_per_video`` pairs from each video; first dimension N = videos x clips_per_video."""
        low, high, video_len = (
            np.repeat(each, self.clips_per_video) for each in (captions.low, captions.high, video_lens)
        )
        center = low.copy() if self.center == "first" else rng.integers(low, high)
        if self.text_lengths:
            limit = rng.integers(*self.text_lengths, size=len(low), endpoint=True)
        else:
            limit = np.full(len(low), self.max_text_len)
        words = np.diff(captions.offsets)
        passed = pass_over(rng, center, low, high, self.keep_prob) if self.keep_prob < 1.0 else None
        first, last = grow_text_runs(rng, center, low, high, words, captions.start, captions.end, limit, passed)
        span = (captions.start[first], captions.end[last], video_len)
        if self.video_lengths:
            second = center_seconds(rng, *span)
            drawn = rng.integers(*self.video_lengths, size=len(low), endpoint=True)
            start, end = grow_video_clips(rng, second, video_len, drawn)
        else:
            start, end = span_clips(*span)
            end = np.minimum(end, start + self.max_video_len)
        if passed is None:
            caps, cmasks = self._gather_text(captions.tokens, captions.offsets[first], captions.offsets[last + 1])
        else:
            tokens, bounds = kept_words(captions.tokens, captions.offsets, first, last, low, passed)
            caps, cmasks = self._gather_text(tokens, bounds[:-1], bounds[1:])
        vfeats, vmasks = self._gather_video(features, start, end)
        arrays = {"caps": caps, "cmasks": cmasks, "vfeats": vfeats, "vmasks": vmasks}
        arrays |= {"video_start": start, "video_end": end}
        arrays |= {"text_start": captions.index[first], "text_end": captions.index[last] + 1}
        return {key: torch.from_numpy(value) for key, value in arrays.items()}

    def _gather_text(self, tokens: np.ndarray, begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ``caps`` int64 and ``cmasks`` bool ``(N, caps_len)`` of N runs of words, laid out as one run is."""
        cls, sep, pad, _ = self.special_ids
        length = np.minimum(end - begin, self.max_text_len)
        column = np.arange(self.max_text_len)
        word = column < length[:, None]
        caps = np.full((len(begin), self.caps_len), pad, dtype=np.int64)
        caps[:, 0], caps[:, 1] = cls, sep
        caps[:, 2:-1][word] = tokens[(begin[:, None] + column)[word]]
        caps[np.arange(len(begin)), 2 + length] = sep
        return caps, np.arange(self.caps_len) < (length + 3)[:, None]

    def _gather_video(
        self, features: Sequence[np.ndarray], start: np.ndarray, end: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ``vfeats`` float32 ``(N, max_video_len, dim)`` and ``vmasks`` bool of clips, N / V from each video."""
        column = np.arange(self.max_video_len)
        vmasks = column < (end - start)[:, None]
        # numpy's zeros come from huge pages, torch's do not: at these sizes that is three quarters of the time.
        vfeats = np.zeros((*vmasks.shape, features[0].shape[1]), dtype=np.float32)
        rows = torch.from_numpy(vfeats).view(-1, vfeats.shape[-1])
        target = torch.from_numpy(np.flatnonzero(vmasks))
        source = (start[:, None] + column)[vmasks]
        filled = np.cumsum(vmasks.reshape(len(features), -1).sum(axis=1)).tolist()
        for feature, begin, stop in zip(features, [0, *filled[:-1]], filled, strict=True):
            block = np.take(np.asarray(feature), source[begin:stop], axis=0)
            # torch converts half to float about ten times as fast as numpy.
            rows.index_copy_(0, target[begin:stop], torch.from_numpy(block).to(torch.float32))
        return vfeats, vmasks


def _length_range(options: ClipSamplingOptions, low_key: str, high_key: str) -> tuple[int, int]:
    low, high = getattr(options, low_key), getattr(options, high_key)
    if low is None or high is None:
        raise ConfigError(f"dataset.{low_key} and dataset.{high_key}: this aligner needs both")
    if not 1 <= low <= high:
        raise ConfigError(f"dataset.{low_key} {low} and dataset.{high_key} {high}: expected 1 <= min <= max")
    return low, high


def _check_features(names: Sequence[str], features: Sequence[np.ndarray]) -> None:
    """Refuse features that are not ``(seconds, dim)`` with one dim for the whole group."""
    for name, feature in zip(names, features, strict=True):
        if feature.ndim != 2:
            raise DataError(f"features of video {name}: shape {feature.shape}, expected (seconds, dim)")
        if feature.shape[1] != features[0].shape[1]:
            raise DataError(
                f"features of video {name} have {feature.shape[1]} values per second, those of {names[0]} "
                f"{features[0].shape[1]}: extract both with one encoder"
            )
