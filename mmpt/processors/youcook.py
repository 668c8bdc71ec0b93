"""YouCook2: clips cut out of videos, each with one caption; for retrieval from lists of clips."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mmpt.processors.annotations import (
    BAD_TIMES,
    AnnotationOptions,
    SkipReport,
    features_of,
    missing_field,
    read_records,
    safe_video_id,
    segment_times,
    whole_seconds,
)
from mmpt.processors.base import MetaProcessor, SplitOptions, VideoProcessor
from mmpt.utils.errors import ConfigError, DataError, shown
from mmpt.utils.files import read_json, resolve_path
from mmpt.utils.options import read_options

__all__ = [
    "ClipItem",
    "ClipReader",
    "UnusableClipError",
    "YoucookMetaProcessor",
    "YoucookOptions",
    "YoucookVideoProcessor",
    "read_database",
]

logger = logging.getLogger(__name__)

_MOST_DIGITS = 18  # of the number of a clip


@dataclass
class YoucookOptions(SplitOptions, AnnotationOptions):
    """Lists of YouCook2.

    Attributes:
        trainval_annotation: youcookii_annotations_trainval.json, with the segment of each clip in seconds;
            without it each record carries its own ``start`` and ``end``.
        use_annotation_text: take the sentence of ``trainval_annotation``, not the ``caption`` of the list.
    """

    trainval_annotation: str | None = None
    use_annotation_text: bool = False


#: A clip in whole seconds, ``(video_id, start, end)``, and its text.
ClipItem = tuple[tuple[str, int, int], str]


class UnusableClipError(Exception):
    """Say why one clip is left out."""


class ClipReader:
    """Turn annotated segments into clips, checked against the features of their videos.

    Args:
        source: the file that lists the clips, for messages.
        store: the feature store; None checks nothing.
    """

    def __init__(self, source: Any, store: Any) -> None:
        self.source, self.store = source, store
        self._seconds: dict[str, int] = {}

    def item(self, video_id: str, annotation: Mapping[str, Any], text: Any, name: str) -> ClipItem:
        """Return the item of one clip; ``name`` is its name in messages.

        Raises:
            UnusableClipError: if it has no text or segment, or its features do not reach it.
            DataError: if the annotation has no times at all.
        """
        if not isinstance(text, str) or not text.strip():
            raise UnusableClipError("without a caption")
        start, end = _segment(annotation, self.source, name)
        if self.store is not None:
            if video_id not in self._seconds:
                self._seconds[video_id] = len(self.store[video_id]) if video_id in self.store else -1
            seconds = self._seconds[video_id]
            if seconds < 0:
                raise UnusableClipError("without features")
            if start >= seconds:
                raise UnusableClipError("whose segment begins after the features end")
        return (video_id, start, end), text.strip()


class YoucookMetaProcessor(MetaProcessor):
    """List ``((video_id, start, end), caption)``: a clip in whole seconds, rounded outwards, and its text.

    The list is a .pkl or .json of records with ``id`` = ``<video id>_<number of the clip>`` and ``caption``.
    Clips whose video has no features, or that lie outside of them, are left out and counted.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": YoucookOptions}

    def __init__(self, config: Any) -> None:
        """Read list and annotations.

        Raises:
            ConfigError: if ``use_annotation_text`` is set and ``trainval_annotation`` is not.
            DataError: if a file is wrong, the split is empty or too much of it cannot be used.
        """
        super().__init__(config)
        self.options = read_options(config, YoucookOptions)
        if self.options.use_annotation_text and not self.options.trainval_annotation:
            raise ConfigError("dataset.use_annotation_text: needs dataset.trainval_annotation, which is not set")
        keys = ["id"] if self.options.use_annotation_text else ["id", "caption"]
        records = read_records(self.path, keys)
        clips = [_clip_id(record["id"], self.path) for record in records]
        keep = self.in_split([video_id for video_id, _ in clips])
        database = read_database(self.options.trainval_annotation) if self.options.trainval_annotation else None
        # Workers get the items alone: the reader and its store end here.
        reader = ClipReader(self.path, features_of(config))
        skips = SkipReport(self.path, self.options.max_missing)
        for record, (video_id, clip), used in zip(records, clips, keep, strict=True):
            if not used:
                continue
            try:
                annotation = _annotation(database, video_id, clip) if database is not None else record
                text = annotation.get("sentence") if self.options.use_annotation_text else record["caption"]
                self.data.append(reader.item(video_id, annotation, text, record["id"]))
            except UnusableClipError as reason:
                skips.add(str(reason), record["id"])
        skips.close(int(keep.sum()))


class YoucookVideoProcessor(VideoProcessor):
    """Read the features of one clip: seconds start to end of the video's ``(seconds, dim)``."""

    def __call__(self, video_id: tuple[str, int, int]) -> np.ndarray:
        """Return ``(end - start, dim)``, fewer rows where the features end before the clip does.

        Raises:
            DataError: if the video has no features, or none in the clip; names folder and clip.
        """
        name, start, end = video_id
        feature = super().__call__(name)
        clip = feature[max(start, 0) : max(end, 0)]
        if not len(clip):
            raise DataError(
                f"{self.vfeat_dir}: the features of video {name!r} cover {len(feature)} s, nothing of {start}-{end} s"
            )
        return clip


def _clip_id(value: Any, path: Any) -> tuple[str, int]:
    """Split ``<video id>_<number>``; ids of YouTube may hold underscores themselves."""
    video_id, separator, number = value.rpartition("_") if isinstance(value, str) else ("", "", "")
    if not separator or not number.isdecimal() or len(number) > _MOST_DIGITS:
        raise DataError(f"{path}: id {shown(value)} is not <video id>_<number of the clip>")
    return safe_video_id(video_id, path), int(number)


def read_database(path: str) -> Mapping[str, Any]:
    """Read video id -> ``{"annotations": [{"segment": [start, end], "sentence"}, ..]}`` of a YouCook2 JSON file.

    Raises:
        DataError: if the file is missing, damaged or anything else; names it.
    """
    content = read_json(resolve_path(path))
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise missing_field(path, "dict", "database", content if isinstance(content, dict) else [])
    return database


def _annotation(database: Mapping[str, Any], video_id: str, clip: int) -> Mapping[str, Any]:
    video = database.get(video_id)
    annotations = video.get("annotations") if isinstance(video, dict) else None
    if not isinstance(annotations, list) or clip >= len(annotations) or not isinstance(annotations[clip], dict):
        raise UnusableClipError("without an annotation")
    return annotations[clip]


def _segment(annotation: Mapping[str, Any], path: Any, clip_id: str) -> tuple[int, int]:
    """Return the whole seconds that a segment touches; raises UnusableClipError, DataError."""
    if "segment" not in annotation and annotation.get("start") is None and annotation.get("end") is None:
        raise DataError(
            f"{path}: clip {clip_id!r} has neither segment nor start and end; "
            "set dataset.trainval_annotation to the file that has them"
        )
    times = segment_times(annotation.get("segment", (annotation.get("start"), annotation.get("end"))))
    if times is None:
        raise UnusableClipError(BAD_TIMES)
    return whole_seconds(*times)
