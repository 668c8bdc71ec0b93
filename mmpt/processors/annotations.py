"""What the processors of annotated corpora share: reading their lists, and leaving out what has no features."""

import logging
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils import safe_pickle
from mmpt.utils.errors import ConfigError, DataError, nearest
from mmpt.utils.files import read_json, resolve_path
from mmpt.utils.options import read_options
from mmpt.utils.safe_paths import plain_name

__all__ = [
    "BAD_TIMES",
    "AnnotationOptions",
    "SkipReport",
    "StoredSeconds",
    "features_of",
    "missing_field",
    "read_records",
    "safe_video_id",
    "segment_times",
    "whole_seconds",
]

logger = logging.getLogger(__name__)

#: Why a segment is left out of which :func:`segment_times` says nothing.
BAD_TIMES = "whose times are not 0 <= start < end"

_EXAMPLES = 3


@dataclass
class AnnotationOptions:
    """What is there of the annotated items.

    Attributes:
        vfeat_dir: the video features.
        frame_path: the frame store of systems that see raw frames, in place of features.
        max_missing: the fraction of annotated items that may be unusable before the job fails.
    """

    vfeat_dir: str | None = None
    frame_path: str | None = None
    max_missing: float = 0.1


class SkipReport:
    """Count what is left out of a list, by reason, and fail beyond a limit.

    Args:
        source: the file that lists the items.
        limit: the fraction that may be left out.
        what: what the items are, for the log.

    Raises:
        ConfigError: if the limit is not a fraction.
    """

    def __init__(self, source: str | os.PathLike[str], limit: float = 1.0, what: str = "items") -> None:
        if not 0.0 <= limit <= 1.0:
            raise ConfigError(f"dataset.max_missing: {limit} is not in [0, 1]")
        self.source, self.limit, self.what = source, limit, what
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return self.counts.total()

    def add(self, reason: str, item: Any, number: int = 1) -> None:
        """Count ``number`` of them; ``item`` is one of the examples that are kept."""
        self.counts[reason] += number
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(str(item))

    def log(self, total: int) -> str:
        """Log, as a warning, what was left out of ``total``, if anything was; return the line."""
        message = self._message(total)
        if len(self):
            logger.warning("%s", message)
        return message

    def close(self, total: int) -> None:
        """Log what was left out of ``total`` items.

        Raises:
            DataError: if it is more than the limit, or everything; names reasons and examples.
        """
        if not total:
            raise DataError(f"{self.source}: lists no {self.what}")
        if len(self) >= total or len(self) > self.limit * total:
            raise DataError(
                f"{self._message(total)}. dataset.max_missing {self.limit} allows fewer: "
                "complete the data, or raise the limit"
            )
        self.log(total)

    def _message(self, total: int) -> str:
        reasons = "; ".join(
            f"{number} {reason} (for example {', '.join(self.examples[reason])})"
            for reason, number in sorted(self.counts.items())
        )
        return f"{self.source}: {len(self)} of {total} {self.what} are left out: {reasons}"


def features_of(config: Any) -> Any:
    """Return what answers which videos are there, and ``len(store[id])``, the seconds that are known of one.

    It is the feature store of ``dataset.vfeat_dir``, or :class:`StoredSeconds` of ``dataset.frame_path``; None where
    neither is set.

    Raises:
        ConfigError: if both are set.
        DataError: if there is no such store.
    """
    options = read_options(config, AnnotationOptions)
    if options.vfeat_dir and options.frame_path:
        raise ConfigError("dataset.frame_path and dataset.vfeat_dir: both are set; a system sees frames or features")
    if options.frame_path:
        return StoredSeconds(str(resolve_path(options.frame_path)))
    from mmpt.store.features import FeatureStore

    return FeatureStore(str(resolve_path(options.vfeat_dir))) if options.vfeat_dir else None


class StoredSeconds:
    """Look a frame store up as annotated corpora do: which videos there are, and how many seconds are known of each."""

    def __init__(self, frame_path: str) -> None:
        from mmpt.store.frame_store import open_frames  # as features_of: not all who read annotations need a store

        self.store = open_frames(frame_path)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self.store

    def holds(self, video_ids: Sequence[str]) -> np.ndarray:
        """Tell of each id whether there are frames of it, bool (ids,)."""
        return self.store.holds(video_ids)

    def __getitem__(self, video_id: str) -> range:
        """Return as many numbers as there are seconds: up to the last frame, and once more the longest step before it.

        Frames are often so sparse that a clip holds none and takes the nearest one: a video has not ended where its
        last frame stands. Where no times are known, or one frame at 0 alone, the end is open.
        """
        times = np.asarray(self.store[video_id].seconds, dtype=np.float64)
        if not len(times):
            return range(0)
        times = np.sort(times[np.isfinite(times)])
        step = float(np.diff(times, prepend=0.0).max(initial=0.0))
        return range(math.ceil(times[-1] + step) if step > 0 else sys.maxsize)


def safe_video_id(video_id: Any, source: str | os.PathLike[str]) -> str:
    """Return a video id that names a file inside the feature folder and nowhere else.

    Raises:
        UnsafePathError: if it is not a string, is empty or holds a path; names the file.
    """
    return plain_name(video_id, source)


def segment_times(pair: Any) -> tuple[float, float] | None:
    """Return start and end of an annotated segment, in seconds; None if they are no times that touch a second.

    They must be two finite numbers (or text that is one) with 0 <= start <= end. Of an instant, only one inside a
    second touches it: 4.5 to 4.5 does, 4 to 4 does not (:func:`whole_seconds`).
    """
    try:
        start, end = (float(value) for value in pair) if not isinstance(pair, str) else (math.nan, math.nan)
    except (TypeError, ValueError, OverflowError):
        return None
    if not 0 <= start <= end < math.inf:
        return None
    first, stop = whole_seconds(start, end)
    return (start, end) if first < stop else None


def whole_seconds(start: float, end: float) -> tuple[int, int]:
    """Return the seconds that a segment touches: floor(start), and ceil(end), the first one after it."""
    return math.floor(start), math.ceil(end)


def missing_field(source: object, what: str, name: str, present: Iterable[Any]) -> DataError:
    """Return the error that says that a column or key is missing, and which is nearest."""
    there = [str(key) for key in present]
    return DataError(f"{source}: no {what} {name!r} (there is {', '.join(there) or 'none'}).{nearest(name, there)}")


def read_records(path: str | os.PathLike[str], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Read a list of dicts from a .json file or a .pkl (restricted: no code runs).

    Raises:
        DataError: if the file is anything else or empty, or a record lacks one of ``keys``; names file and key.
    """
    records = safe_pickle.load(path) if Path(path).suffix in (".pkl", ".pickle") else read_json(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path}: expected a list of records with {', '.join(keys)}")
    if not records:
        raise DataError(f"{path}: lists no items")
    for number, record in enumerate(records):
        for key in keys:
            if key not in record:
                raise missing_field(f"{path}: record {number}", "key", key, record)
    return records
