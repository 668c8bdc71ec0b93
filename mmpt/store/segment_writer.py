"""Writing a segment store: shard by shard, each readable as soon as it is complete."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpt.store.segment_store import (
    FIELDS,
    MELS,
    SEGMENT_LAYOUT,
    SPECTROGRAM_FRAMES,
    STORE_FILE,
    check_fields,
)
from mmpt.store.video_shards_writer import VIDEOS_PER_SHARD, VideoShardsWriter
from mmpt.utils.errors import DataError

__all__ = ["SegmentRecord", "SegmentStoreWriter"]


@dataclass
class SegmentRecord:
    """One video, cut into segments; every list has one element for each.

    Attributes:
        images: the bytes of each frame's JPEG.
        times: (segments, 2), start and end in the video, seconds.
        mid: (segments,), when each frame is shown, seconds; NaN where unknown.
        speed: (segments,), the playback speed, above 0.
        tokens: ids of the words, integers (tokens,) each.
        token_times: (tokens, 2) each: start and end from the start of the segment, divided by its speed.
        raw_tokens: ids of the second transcript.
        spectrograms: log-mel, (188, 64) each.
        meta: JSON-ready facts about the video.
    """

    images: Sequence[bytes | np.ndarray]
    times: npt.ArrayLike
    mid: npt.ArrayLike
    speed: npt.ArrayLike
    tokens: Sequence[npt.ArrayLike]
    token_times: Sequence[npt.ArrayLike] | None = None
    raw_tokens: Sequence[npt.ArrayLike] | None = None
    spectrograms: Sequence[npt.ArrayLike] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


class SegmentStoreWriter(VideoShardsWriter):
    """Add videos to a store; what is there already stays, and a video that is added again replaces the earlier one.

    Args:
        folder: of the store; made if absent. The caller sees to it that nobody else writes there
            (:func:`mmpt.utils.files.sole_writer`).
        fields: what each segment gets, of :data:`mmpt.store.segment_store.FIELDS`; a record may hold more.
        producer: JSON-ready facts about the origin, kept in the index of each shard.
        videos_per_shard: a shard is closed after so many videos; a killed writer loses the one it was writing.
        on_commit: called when a shard has become readable, with the ids in it.
        settings: JSON-ready, what the content of all its videos depends on, kept in the commit file; None: they are
            kept elsewhere.

    Raises:
        DataError: if the folder holds a damaged store, one with other fields, or one that was made with other settings.
        StorageError: if the disk is full or the folder may not be written, here or in any later step.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        fields: frozenset[str] = FIELDS,
        producer: Mapping[str, Any] | None = None,
        videos_per_shard: int = VIDEOS_PER_SHARD,
        on_commit: Callable[[list[str]], None] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.fields = check_fields(fields, folder)
        facts = {"tool": "mmpt.store.segment_writer", **(producer or {})}
        parts = {*self.fields, "meta"}
        super().__init__(SEGMENT_LAYOUT, folder, parts, facts, videos_per_shard, on_commit, settings)
        file = self.folder / STORE_FILE
        there = check_fields(self.extra.setdefault("fields", sorted(self.fields)), file)
        if there != self.fields:
            raise DataError(
                f"{file}: the store holds segments with {', '.join(sorted(there))}, these have"
                f" {', '.join(sorted(self.fields))}. Use another folder, or remove this one"
            )

    def add(self, video_id: str, record: SegmentRecord) -> None:
        """Add a video.

        Raises:
            DataError: if there is no segment, a field is missing, or the shapes disagree; names video and field.
        """
        count = len(record.images)
        times = np.asarray(record.times, np.float64)
        mid, speed = (np.asarray(column, np.float64) for column in (record.mid, record.speed))
        if not count or not all(len(image) for image in record.images):
            raise DataError(f"video {video_id!r}: {count} segments, expected at least one and no empty image")
        if times.shape != (count, 2) or mid.shape != (count,) or speed.shape != (count,):
            raise DataError(
                f"video {video_id!r}: {count} images, but times {times.shape}, mid {mid.shape} and speed {speed.shape}"
            )
        if not np.isfinite(times).all() or (times[:, 1] < times[:, 0]).any() or not (speed > 0).all():
            raise DataError(f"video {video_id!r}: a segment ends before it starts, or its speed is not above 0")
        try:
            meta = json.dumps(dict(record.meta), ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise DataError(f"video {video_id!r}: its facts (meta) are not JSON ({error})") from error
        parts: dict[str, list[np.ndarray]] = {
            name: _items(video_id, name, getattr(record, name), count) for name in self.fields - {"images"}
        }
        for number in range(count) if "token_times" in parts else ():
            if len(parts["tokens"][number]) != len(parts["token_times"][number]):
                raise DataError(f"video {video_id!r}: segment {number}: not one pair of times for each of its tokens")
        parts["images"] = [
            np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image for image in record.images
        ]
        parts["meta"] = [np.frombuffer(meta, np.uint8)]
        self.put(video_id, np.concatenate([times, mid[:, None], speed[:, None]], axis=1), parts)


def _items(video_id: str, name: str, items: Sequence[npt.ArrayLike] | None, count: int) -> list[np.ndarray]:
    """Return the items of a field in its dtype, checked against its shape."""
    kind = SEGMENT_LAYOUT.parts[name]
    if items is None or len(items) != count:
        found = "none" if items is None else str(len(items))
        raise DataError(f"video {video_id!r}: {count} segments, but {found} of them with {name.replace('_', ' ')}")
    converted = []
    for number, item in enumerate(items):
        given = np.asarray(item)
        if given.size == 0:
            given = given.reshape(0, *kind.row_shape)
        wrong_kind = np.issubdtype(kind.dtype, np.integer) and given.size and not np.issubdtype(given.dtype, np.integer)
        wrong_length = name == "spectrograms" and given.shape != (SPECTROGRAM_FRAMES, MELS)
        if given.ndim < 1 or given.shape[1:] != kind.row_shape or wrong_kind or wrong_length:
            raise DataError(
                f"video {video_id!r}: segment {number}: {name} are {given.dtype} of shape {given.shape}, not"
                f" {np.dtype(kind.dtype)} of shape {_expected(name, kind.row_shape)}"
            )
        converted.append(given.astype(kind.dtype, copy=False))
    return converted


def _expected(name: str, row_shape: tuple[int, ...]) -> str:
    rows = str(SPECTROGRAM_FRAMES) if name == "spectrograms" else "tokens"
    return f"({', '.join([rows, *map(str, row_shape)])})"
