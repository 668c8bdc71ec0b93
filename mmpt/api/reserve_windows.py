"""Stretches of videos that MERLOT Reserve is asked about without training, cut into a segment store.

Each entry of the store is one item: a video for questions about it, or what is seen before an action. A segment has the
frame in its middle and the sound around it; no words.
"""

import logging
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.api.reserve_video_segments import video_to_segments_zero_shot
from mmpt.processors.corpus_files import read_delimited
from mmpt.processors.epic_kitchens import seconds_of
from mmpt.store.decode import probe
from mmpt.store.extraction_job import NO_MANIFEST, ExtractionSummary, printable
from mmpt.store.images import encode_jpeg
from mmpt.store.segment_store import MELS, SPECTROGRAM_FRAMES
from mmpt.store.segment_writer import SegmentRecord, SegmentStoreWriter
from mmpt.store.spectrogram import INFERENCE_STARTS
from mmpt.store.video_list import VideoItem
from mmpt.utils.errors import DataError
from mmpt.utils.files import sole_writer

__all__ = [
    "VIDEOS_PER_SHARD",
    "WindowItem",
    "anticipation_items",
    "anticipation_windows",
    "cut_windows",
    "question_items",
    "question_windows",
    "whole_spectrogram",
]

logger = logging.getLogger(__name__)

#: Of the stored frames: nearly the decoded ones.
_QUALITY = 95
_FIELDS = frozenset({"images", "tokens", "spectrograms"})
#: Entries of a shard: what a killed run loses.
VIDEOS_PER_SHARD = 256
_LEAST = 0.04  # seconds of a window, so that it has a middle

Window = tuple[float, float]


@dataclass(frozen=True)
class WindowItem:
    """One entry to be: its id, the video, and what to cut out of it; ``error`` says why nothing can be.

    ``windows`` are seconds, or None for stretches of ``seconds`` in the middle of the whole video.
    """

    item_id: str
    path: str
    windows: tuple[Window, ...] | None = None
    seconds: float = 3.0
    error: str = ""


def question_windows(duration: float, seconds: float = 3.0) -> list[Window]:
    """Return stretches of equal length that fill the middle of a video: as many as fit, or the whole of a short one.

    Raises:
        DataError: if one of the two is not above 0.
    """
    if not duration > 0 or not seconds > 0:
        raise DataError(f"{duration} seconds of video cannot be cut into stretches of {seconds}")
    count = int(duration / seconds + 1e-6)
    if count == 0:
        return [(0.0, duration)]
    first = (duration - count * seconds) / 2
    return [(first + number * seconds, first + (number + 1) * seconds) for number in range(count)]


def anticipation_windows(action: float, seconds: float = 2.0, number: int = 8, gap: float = 1.0) -> list[Window]:
    """Return what is seen before an action: stretches that end ``gap`` seconds before it, the last one last.

    At the beginning of a video there are fewer, and the first may be shorter.

    Args:
        action: when it starts, in seconds.
        seconds: of a stretch; published: 8 of 2, or 6 of 5.
        number: of stretches, at most.
        gap: seconds before the action that are not seen.
    """
    end, windows = action - gap, []
    for _ in range(number):
        start = max(end - seconds, 0.0)
        if end - start < _LEAST:
            break
        windows.append((start, end))
        end = start
    return windows[::-1]


def question_items(videos: Iterable[VideoItem], seconds: float = 3.0) -> list[WindowItem]:
    """Return an item for each video, under its id."""
    return [WindowItem(video.video_id, video.path, None, seconds) for video in videos]


def anticipation_items(
    annotations: str | os.PathLike[str],
    videos: Iterable[VideoItem],
    seconds: float = 2.0,
    number: int = 8,
    gap: float = 1.0,
) -> list[WindowItem]:
    """Return an item for each action of an EPIC_100_*.csv, under its ``narration_id``.

    Raises:
        DataError: if the file is wrong; names line and column.
    """
    paths = {video.video_id: video.path for video in videos}
    items = []
    for place, row in read_delimited(annotations, ","):
        missing = [name for name in ("narration_id", "video_id", "start_timestamp") if name not in row]
        if missing:
            raise DataError(f"{place}: no column {missing[0]!r} (there is {', '.join(row)})")
        windows = anticipation_windows(seconds_of(row["start_timestamp"], place), seconds, number, gap)
        error = "" if row["video_id"] in paths else f"no video {row['video_id']!r}"
        error = error or ("" if windows else f"it starts within {gap} s: there is nothing to be seen before")
        items.append(WindowItem(row["narration_id"], paths.get(row["video_id"], ""), tuple(windows), error=error))
    if not items:
        raise DataError(f"{annotations}: lists no actions")
    return items


def cut_windows(
    items: Iterable[WindowItem],
    folder: str | os.PathLike[str],
    settings: Mapping[str, Any] | None = None,
    force: bool = False,
    progress: bool = True,
    videos_per_shard: int = VIDEOS_PER_SHARD,
) -> ExtractionSummary:
    """Cut items into a segment store; those that it has are left as they are, unless ``force``.

    A video without sound has silence.

    Args:
        items: what to cut out of which videos.
        folder: of the store.
        settings: JSON-ready, what the windows of all items depend on; the store keeps them.
        force: cut again what is there.
        progress: show a bar.
        videos_per_shard: entries of a shard; a killed run loses at most so many.

    Returns:
        Counts; ``failures`` are the items that could not be cut, with the reason.

    Raises:
        DataError: if the store was made with other settings.
    """
    from tqdm import tqdm

    began, summary = time.perf_counter(), ExtractionSummary("segments", skipped_because="", full_list=NO_MANIFEST)
    about = {"tool": "cut_windows", **(settings or {})}
    with (
        sole_writer(Path(folder) / ".lock"),
        SegmentStoreWriter(folder, _FIELDS, about, videos_per_shard, settings=about) as writer,
    ):
        for item in tqdm(list(items), desc="windows", unit="item", disable=not progress):
            if item.item_id in writer.stored and not force:
                summary.skipped += 1
                continue
            try:
                record = _record(item)
                writer.add(item.item_id, record)
            except DataError as error:
                summary.failures.append((printable(item.item_id), printable(str(error))))
                logger.info("%s: %s", *summary.failures[-1])
                continue
            summary.done += 1
            summary.frames += len(record.images)
    summary.wall_seconds = time.perf_counter() - began
    return summary


def _record(item: WindowItem) -> SegmentRecord:
    if item.error:
        raise DataError(item.error)
    windows = item.windows
    if windows is None:
        duration = probe(item.path).duration
        if duration is None:
            raise DataError(f"{item.path}: does not say how long it is; write it anew")
        windows = tuple(question_windows(duration, item.seconds))
    segments = video_to_segments_zero_shot(item.path, times=windows)
    return SegmentRecord(
        images=[encode_jpeg(segment["frame"], _QUALITY) for segment in segments],
        times=np.array(windows, np.float64),
        mid=np.array([segment["mid_time"] for segment in segments]),
        speed=np.ones(len(segments)),
        tokens=[np.zeros(0, np.int32)] * len(segments),
        spectrograms=[whole_spectrogram(segment["spectrogram"]) for segment in segments],
    )


def whole_spectrogram(blocks: np.ndarray | None) -> np.ndarray:
    """Return a spectrogram (188, 64) of which inference takes these blocks, (3, 60, 65), out again."""
    whole = np.zeros((SPECTROGRAM_FRAMES, MELS), np.float16)
    if blocks is not None:
        for start, block in zip(INFERENCE_STARTS, blocks, strict=True):
            whole[start : start + len(block)] = block[:, :MELS]
    return whole
