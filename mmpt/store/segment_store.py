"""Segments of videos on disk: per segment a frame, the words spoken in it and their times, and maybe its sound.

What MERLOT (arXiv:2106.02636) calls a chunk and MERLOT Reserve (arXiv:2201.02639) a segment. A store is a folder of
shards (:mod:`mmpt.store.video_shards`). Each shard ``<name>`` is some
:class:`~mmpt.utils.shardedtensor.ShardedTensor`, of which those of a field are there if the store has it:

=========================== =======================================================================================
``<name>.videos``           one item per video, under its id: start, end, the time of the frame and the playback
                            speed of its segments, float64 (segments, 4), times in seconds of the video
``<name>.meta``             one item per video: a JSON object in UTF-8, uint8 (bytes,)
``<name>.images``           one item per segment: the bytes of its JPEG, uint8 (bytes,)
``<name>.tokens``           one item per segment: ids of its words, int32 (tokens,)
``<name>.token_times``      one item per segment: start and end of each of them, float32 (tokens, 2)
``<name>.raw_tokens``       one item per segment: ids of the second transcript, int32 (tokens,)
``<name>.spectrograms``     one item per segment: log-mel, float16 (188, 64)
``segments.json``           the fields, and which shards there are, in order: the commit
=========================== =======================================================================================

The writer is :mod:`mmpt.store.segment_writer`.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.store.video_shards import Layout, Part, Place, VideoShards, opener_of, read_store_file
from mmpt.utils.errors import DataError, shown

__all__ = [
    "ALWAYS",
    "FIELDS",
    "MELS",
    "SEGMENT_LAYOUT",
    "SPECTROGRAM_FRAMES",
    "STORE_FILE",
    "SegmentStore",
    "StoredSegments",
    "check_fields",
    "open_segments",
]

STORE_FILE = "segments.json"
#: Frames and mel bands of a stored spectrogram: 5 seconds (arXiv:2201.02639, appendix).
SPECTROGRAM_FRAMES, MELS = 188, 64
#: What every store holds, and what one can hold.
ALWAYS = frozenset({"images", "tokens"})
FIELDS = ALWAYS | {"token_times", "raw_tokens", "spectrograms"}

_META = "meta"

SEGMENT_LAYOUT = Layout(
    file=STORE_FILE,
    kind="segment store",
    option="dataset.segment_path",
    how_to_make="scripts/segment_extractor makes one from videos and their transcripts.",
    videos=Part(np.float64, (4,)),
    parts={
        _META: Part(np.uint8, per_video=True),
        "images": Part(np.uint8),
        "tokens": Part(np.int32),
        "token_times": Part(np.float32, (2,)),
        "raw_tokens": Part(np.int32),
        "spectrograms": Part(np.float16, (MELS,)),
    },
)


def check_fields(fields: Any, where: str | os.PathLike[str]) -> frozenset[str]:
    """Return the fields of a store if they are possible ones.

    Raises:
        DataError: if one is unknown, or one that every store has is missing; names ``where``.
    """
    held = list(fields) if isinstance(fields, list | tuple | set | frozenset) else [fields]
    if not all(isinstance(name, str) for name in held) or not ALWAYS <= set(held) <= FIELDS:
        raise DataError(
            f"{where}: {shown(fields)} are no fields of a segment store: {', '.join(sorted(ALWAYS))}, and maybe"
            f" {', '.join(sorted(FIELDS - ALWAYS))}"
        )
    return frozenset(held)


class StoredSegments:
    """The segments of one video in the order of time; what is large is read when asked for.

    Attributes:
        video_id: whose segments they are.
        times: float64 (segments, 2), start and end of each in the video, in seconds.
        mid: float64 (segments,), when its frame is shown, in seconds.
        speed: float32 (segments,), how much faster it is played: 1 everywhere for MERLOT.
        meta: what is known of the video: ``title`` and ``description`` as strings, and what an importer found
            (``title_ids``, ``description_ids``, ``tags_ids``: lists of token ids where only those are known).
    """

    def __init__(self, store: "SegmentStore", video_id: str, place: Place) -> None:
        self.video_id = video_id
        self._store, self._place = store, place
        rows = store.rows(place)
        self.times, self.mid, self.speed = rows[:, :2], rows[:, 2], rows[:, 3].astype(np.float32)

    def __len__(self) -> int:
        return len(self._place.rows)

    @property
    def meta(self) -> dict[str, Any]:
        """What is known of the video."""
        content = self._store.part(self._place.shard, _META)[self._place.number].tobytes()
        try:
            found = json.loads(content)
        except ValueError as error:
            raise DataError(f"video {self.video_id!r} of {self._store.path}: its facts are not JSON") from error
        return dict(found)

    def image(self, k: int) -> np.ndarray:
        """Return the JPEG of the frame of segment ``k``, uint8 (bytes,); raises DataError as all that follow."""
        return self._read("images", k)

    def tokens(self, k: int) -> np.ndarray:
        """Return the ids of the words of segment ``k``, int32 (tokens,): no special ids, not padded, maybe none."""
        return self._read("tokens", k)

    def token_times(self, k: int) -> np.ndarray:
        """Return start and end of each token, float32 (tokens, 2): seconds from the start of segment ``k``, as played.

        That is, divided by its speed (arXiv:2201.02639, appendix).
        """
        return self._read("token_times", k)

    def raw_tokens(self, k: int) -> np.ndarray:
        """Return the ids of the second transcript of segment ``k``, int32 (tokens,): as recognised, not denoised."""
        return self._read("raw_tokens", k)

    def spectrogram(self, k: int) -> np.ndarray:
        """Return the log-mel spectrogram of segment ``k``, float16 (188, 64), in natural logarithms."""
        return self._read("spectrograms", k)

    def _read(self, field: str, k: int) -> np.ndarray:
        try:
            number = self._place.rows[k]
        except IndexError:
            raise IndexError(f"video {self.video_id!r} has {len(self)} segments, not segment {k}") from None
        if field not in self._store.fields:
            raise DataError(
                f"{self._store.path}: holds no {field.replace('_', ' ')}, only {', '.join(sorted(self._store.fields))}."
                " Extract the segments with them"
            )
        try:
            return self._store.part(self._place.shard, field)[number]
        except DataError as error:
            raise DataError(f"video {self.video_id!r}: segment {k}: {error}") from error


class SegmentStore(VideoShards):
    """The segments of many videos: ``store[video_id]`` gives its :class:`StoredSegments`.

    Opening reads ids and times; what is larger is mapped when it is first asked for. A pickled store is its path:
    spawned workers open it themselves, once per process.

    Attributes:
        fields: what each segment has: ``images`` and ``tokens``, and maybe others of :data:`FIELDS`.

    Raises:
        DataError: if there is no store, or a shard that it names is missing, damaged or of another write; names it.
    """

    layout = SEGMENT_LAYOUT

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.fields = check_fields(read_store_file(path, self.layout).get("fields"), Path(path) / STORE_FILE)

    def __getitem__(self, video_id: str) -> StoredSegments:
        """Return the segments of a video.

        Raises:
            DataError: if there are none; names the folder, and the nearest id or how many there are.
        """
        place = self.place(video_id, "Extract or import its segments, or take it off the list.")
        return StoredSegments(self, video_id, place)

    def parts(self) -> frozenset[str]:
        """Return the names of the parts that each shard has: those of the fields, and the facts about the videos."""
        return self.fields | {_META}

    def __reduce__(self) -> tuple[Any, ...]:
        return open_segments, (os.path.abspath(self.path),)


_opened = opener_of(SegmentStore)


def open_segments(path: str | os.PathLike[str]) -> SegmentStore:
    """Return the store, opened once per process; one that has got other shards since is opened anew.

    Raises:
        DataError: as :class:`SegmentStore`.
    """
    return _opened(path)
