"""COIN action segmentation (Tang et al., CVPR 2019): the step, or none, that is seen in every second of a video.

COIN.json is ``{"database": {<video id>: {"subset", "annotation": [{"id", "label", "segment"}, ..]}}}``; its other
keys (class, duration, video_url ..) are not read. A segment covers the seconds [floor(start), ceil(end)); of two
segments that share a second, the later one in the file has it.

Shapes: T seconds of the video, W windows, M seconds of a window, D feature width.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from mmpt.modules.masking import IGNORED
from mmpt.processors.annotations import (
    BAD_TIMES,
    AnnotationOptions,
    SkipReport,
    features_of,
    missing_field,
    safe_video_id,
    segment_times,
    whole_seconds,
)
from mmpt.processors.base import Aligner, AlignerOptions, MetaProcessor, SplitOptions, TextProcessor
from mmpt.processors.class_names import BACKGROUND_NAME, list_classes, read_class_names, whole_number
from mmpt.processors.windows import WindowOptions, Windows, video_only_text
from mmpt.utils.errors import DataError
from mmpt.utils.files import read_json
from mmpt.utils.options import read_options

__all__ = [
    "COINActionSegmentationAligner",
    "COINActionSegmentationMetaProcessor",
    "COINActionSegmentationTextProcessor",
    "COINOptions",
    "SegmentationOptions",
    "second_targets",
]

logger = logging.getLogger(__name__)

_SUBSETS = {"train": "training", "valid": "testing", "test": "testing"}


@dataclass
class COINOptions(SplitOptions, AnnotationOptions):
    """Lists of COIN.

    Attributes:
        label_path: the names of the classes, .json ``{id: name}`` or a text file whose line n (from 0) names
            class n; without it they come from all videos of the list, of whatever subset.
        background: the class of a second without a step.
    """

    label_path: str | None = None
    background: int = 0


@dataclass
class SegmentationOptions(AlignerOptions, WindowOptions):
    """Sizes of the model input, windows, and the class of a second without a segment."""

    background: int = 0


class COINActionSegmentationMetaProcessor(MetaProcessor):
    """List ``(video_id, {"start", "end", "label"})``: the segments of a video in seconds, with their class ids.

    Training takes the subset "training", validation and test "testing"; with ``val_holdout``, validation takes that
    share of "training". Videos without features are left out and counted, and so are segments without a second
    inside the features; segments that end after the features are cut there. ``left_out`` says how many
    (``skipped`` videos, ``skipped_segments``, ``cut_segments``).

    ``labels`` are the names of the classes, by class id: ids are those of the file, ``""`` names an id that the file
    does not use, and ``"O"`` is the background. ``num_labels`` is their number.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": COINOptions}

    def __init__(self, config: Any) -> None:
        """Read the list.

        Raises:
            ConfigError: if a needed key is not set or ``background`` is the id of a step.
            DataError: if a file is wrong, two labels share an id, the split is empty or too much of it cannot be used.
        """
        super().__init__(config)
        self.options = read_options(config, COINOptions)
        self.background = self.options.background
        database = _read_database(self.path)
        found = _labels_of(database, self.path)
        self.labels = self._class_names(found)
        subset = "training" if self.split == "valid" and self.val_holdout else _SUBSETS[self.split]
        names = [name for name, video in database.items() if video["subset"] == subset]
        names = [name for name, used in zip(names, self.in_split(names), strict=True) if used]
        self._read_videos(names, database, features_of(config))

    @property
    def num_labels(self) -> int:
        """Number of classes, background included."""
        return len(self.labels)

    def _class_names(self, found: Mapping[int, str]) -> list[str]:
        """Return the names of all classes; ``found`` are those of the list itself."""
        path = self.options.label_path
        if not path:
            return list_classes(found, self.background, self.path)
        given = read_class_names(path)
        unnamed = sorted(found.keys() - given.keys())
        if unnamed:
            raise DataError(
                f"{path}: does not name label id {unnamed[0]}, {found[unnamed[0]]!r} in {self.path} "
                f"({len(unnamed)} ids are not named)"
            )
        steps = {number: name for number, name in given.items() if number != self.background or number in found}
        return list_classes(steps, self.background, path, given.get(self.background, BACKGROUND_NAME))

    def _read_videos(self, names: Sequence[str], database: Mapping[str, Any], store: Any) -> None:
        """Fill ``data``."""
        videos = SkipReport(self.path, self.options.max_missing, "videos")
        segments = SkipReport(self.path, self.options.max_missing, "segments")
        total, self.cut_segments = 0, 0
        for name in names:
            if store is not None and name not in store:
                videos.add("without features", name)
                continue
            seconds = None if store is None else len(store[name])
            if seconds == 0:
                videos.add("whose features hold no second", name)
                continue
            annotation = database[name]["annotation"]
            total += len(annotation)
            self.data.append((name, self._segments(name, annotation, seconds, segments)))
        videos.close(len(names))
        if total:
            segments.close(total)
        self.left_out = {
            "skipped": len(videos),
            "skipped_segments": len(segments),
            "cut_segments": self.cut_segments,
        }
        if self.cut_segments:
            logger.info("%s: %d of %d segments are cut where the features end", self.path, self.cut_segments, total)

    def _segments(
        self, name: str, annotation: Sequence[Mapping[str, Any]], seconds: int | None, skips: SkipReport
    ) -> dict[str, list[Any]]:
        """Return the usable segments of a video whose features have so many seconds (None: not known)."""
        kept: dict[str, list[Any]] = {"start": [], "end": [], "label": []}
        for segment in annotation:
            times = segment_times(segment.get("segment"))
            if times is None:
                skips.add(BAD_TIMES, f"{name} {segment.get('segment')}")
                continue
            first, stop = whole_seconds(*times)
            if seconds is not None and first >= seconds:
                skips.add("that begin after the features end", f"{name} {segment['segment']}")
                continue
            self.cut_segments += seconds is not None and stop > seconds
            for key, value in zip(kept, (*times, _label_id(segment, f"{self.path}: video {name!r}")), strict=True):
                kept[key].append(value)
        return kept


class COINActionSegmentationTextProcessor(TextProcessor):
    """Pass segments on as they are."""

    def __call__(self, text_id: Any, rng: np.random.Generator | None = None) -> Any:
        """Return the segments ``{"start", "end", "label"}`` of a video."""
        return text_id


class COINActionSegmentationAligner(Aligner):
    """Cut a video and the class of each of its seconds into windows. Serves any segmentation of seconds."""

    config_options: ClassVar[dict[str, type]] = {"dataset": SegmentationOptions}
    whole_videos = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.windows = Windows.of(config)
        self.background = read_options(config, SegmentationOptions).background

    def __call__(
        self, video_id: Any, video_feature: Any, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return the windows of a video.

        Args:
            video_feature: (T, D), any float dtype.
            text_feature: ``{"start": [..], "end": [..], "label": [..]}``, seconds and class ids.

        Returns:
            ``vfeats`` float32 (W, M, D), ``vmasks`` bool (W, M), ``caps`` int64 and ``cmasks`` bool (W, 4),
            ``targets`` int64 (W, M), -100 on padding, ``video_start`` int64 (W,), the first second of each window,
            ``video_targets`` int64 (T,), ``video_len`` and ``video_id``.

        Raises:
            DataError: if features or segments are not such; names the video.
        """
        try:
            cut = self.windows.cut(np.asarray(video_feature))
            targets = second_targets(text_feature, len(video_feature), self.background)
        except DataError as error:
            raise DataError(f"video {video_id}: {error}") from error
        caps, cmasks = video_only_text(self.special_ids, len(cut.starts))
        return {
            "caps": caps,
            "cmasks": cmasks,
            "vfeats": cut.vfeats,
            "vmasks": cut.vmasks,
            "targets": torch.from_numpy(self.windows.cut_seconds(targets, IGNORED)),
            "video_start": torch.from_numpy(cut.starts),
            "video_targets": torch.from_numpy(targets),
            "video_len": len(targets),
            "video_id": str(video_id),
        }


def second_targets(segments: Mapping[str, Sequence[Any]], seconds: int, background: int) -> npt.NDArray[np.int64]:
    """Return the class of every second, int64 (seconds,), of segments ``{"start", "end", "label"}``.

    A segment covers [floor(start), ceil(end)), as far as there are seconds; the later of two overrides the earlier.

    Raises:
        DataError: if the lists are missing or not equally long, or a label is no class id.
    """
    try:
        rows = list(zip(segments["start"], segments["end"], segments["label"], strict=True))
        targets = np.full(seconds, background, dtype=np.int64)
        for start, end, label in rows:
            if label < 0:
                raise ValueError(f"label {label} is negative")
            first, stop = whole_seconds(start, end)
            targets[max(first, 0) : max(stop, 0)] = label
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"expected segments with start, end and label lists ({error!r})") from error
    return targets


def _read_database(path: Path) -> dict[str, dict[str, Any]]:
    """Return video id -> annotation, with the keys that are read checked."""
    content = read_json(path)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise missing_field(path, "dict", "database", content if isinstance(content, dict) else [])
    for name, video in database.items():
        safe_video_id(name, path)
        for key, kind in (("subset", str), ("annotation", list)):
            if not isinstance(video, dict) or not isinstance(video.get(key), kind):
                raise missing_field(f"{path}: video {name!r}", "key", key, video if isinstance(video, dict) else [])
    subsets = {video["subset"] for video in database.values()}
    unknown = sorted(subsets - set(_SUBSETS.values()))
    if unknown:
        logger.warning("%s: videos of subset %s are read in no split", path, ", ".join(unknown))
    return database


def _labels_of(database: Mapping[str, Mapping[str, Any]], path: Path) -> dict[int, str]:
    """Return id -> label of all segments.

    Raises:
        DataError: if a segment has no id or label, or an id has two labels; names video or labels.
    """
    labels: dict[int, tuple[str, str]] = {}
    for name, video in database.items():
        for segment in video["annotation"]:
            number = _label_id(segment, f"{path}: video {name!r}")
            label = segment.get("label")
            if not isinstance(label, str):
                raise missing_field(f"{path}: video {name!r}: segment", "text", "label", segment)
            known, where = labels.setdefault(number, (label.strip(), name))
            if known != label.strip():
                raise DataError(
                    f"{path}: label id {number} is {known!r} in video {where} and {label.strip()!r} in video {name}"
                )
    return {number: label for number, (label, _) in labels.items()}


def _label_id(segment: Any, where: str) -> int:
    if not isinstance(segment, dict) or "id" not in segment:
        raise missing_field(f"{where}: segment", "key", "id", segment if isinstance(segment, dict) else [])
    return whole_number(segment["id"], f"{where}: label id")
