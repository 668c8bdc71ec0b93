"""Timed transcripts of many videos, in HowTo100M's format, read one video at a time.

A caption file is JSON, ``{video id: {"start": [..], "end": [..], "text": [..]}}`` (times in seconds), or
a pickle of a dict from video id to the JSON string of such an entry. JSON files are scanned in pieces:
the published raw_caption.json is larger than the memory of many machines.
"""

import contextlib
import itertools
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.store.json_scan import JsonObjectScanner
from mmpt.utils import safe_pickle
from mmpt.utils.errors import DataError

__all__ = [
    "TooManyFailuresError",
    "Transcript",
    "TranscriptFile",
    "iter_transcripts",
    "parse_transcript",
    "scan_captions",
]

logger = logging.getLogger(__name__)

_FIELDS = ("start", "end", "text")
_PICKLES = (".pkl", ".pickle")
# A file whose first videos are all malformed is the wrong file: say so at once, not after hours.
_FIRST_MALFORMED = 8


class TooManyFailuresError(DataError):
    """Report that more videos are missing or malformed than is allowed; not a mistake in the call."""


@dataclass(frozen=True)
class Transcript:
    """The clips of one video in time order: ``start`` and ``end`` in seconds, ``text`` on one line each."""

    start: list[float]
    end: list[float]
    text: list[str]

    def __len__(self) -> int:
        return len(self.text)

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the entry of a caption file."""
        return {"start": self.start, "end": self.end, "text": self.text}


def parse_transcript(entry: Any, counts: Counter[str] | None = None) -> Transcript:
    """Check one entry of a caption file and return its usable clips, sorted by start.

    A clip without text, without two finite non-negative times or whose end lies before its start is
    dropped and counted by reason in ``counts``. Runs of white space in a text become one space.

    Raises:
        DataError: if the entry is not ``start``, ``end`` and ``text`` lists of one length (no video is named).
    """
    counts = Counter() if counts is None else counts
    if isinstance(entry, str | bytes):
        try:
            entry = json.loads(entry)
        except (ValueError, RecursionError) as error:
            raise DataError(f"an entry is a string but not JSON ({error})") from error
    columns: list[Any] = [entry.get(name) for name in _FIELDS] if isinstance(entry, dict) else []
    columns = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns]
    if not columns or not all(isinstance(column, list | tuple) for column in columns):
        raise DataError('expected {"start": [..], "end": [..], "text": [..]}')
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise DataError("start, end and text differ in length: {}, {}, {}".format(*lengths))
    clips = []
    for start, end, text in zip(*columns, strict=True):
        fault = _fault(start, end, text)
        if fault:
            counts[fault] += 1
        else:
            clips.append((float(start), float(end), " ".join(text.split())))
    if any(later[0] < earlier[0] for earlier, later in itertools.pairwise(clips)):
        counts["videos whose clips had to be sorted by start"] += 1
        clips.sort(key=lambda clip: clip[0])
    return Transcript([clip[0] for clip in clips], [clip[1] for clip in clips], [clip[2] for clip in clips])


def iter_transcripts(
    path: str | os.PathLike[str], counts: Counter[str] | None = None, limit: float = 0.1
) -> Iterator[tuple[str, Transcript]]:
    """Yield ``(video id, transcript)`` in file order; malformed videos and clips are counted in ``counts``.

    Of an id given twice the first entry counts.

    Raises:
        DataError: if the file is not a caption file; names it.
        TooManyFailuresError: if more than the fraction ``limit`` of its videos are malformed; names file and a video.
    """
    counts = Counter() if counts is None else counts
    malformed: list[str] = []
    total = 0
    for video_id, entry in scan_captions(path, counts):
        total += 1
        try:
            transcript = parse_transcript(entry, counts)
        except DataError as error:
            malformed.append(f"video {video_id!r}: {error}")
            counts["malformed videos"] += 1
            if len(malformed) == total == _FIRST_MALFORMED:
                break
        else:
            yield video_id, transcript
    if malformed and len(malformed) > limit * total:
        raise TooManyFailuresError(
            f"{path}: {len(malformed)} of the first {total} videos are malformed, for example {malformed[0]}. "
            "Expected a caption file as HowTo100M's raw_caption.json"
        )
    if malformed:
        logger.warning("%s: %d malformed videos left out, for example %s", path, len(malformed), malformed[0])


def scan_captions(path: str | os.PathLike[str], counts: Counter[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield ``(video id, unchecked entry)`` of a caption file, each id once.

    Raises:
        DataError: if the file is missing, empty, cut or not a dict of videos.
    """
    counts = Counter() if counts is None else counts
    seen: set[str] = set()
    for video_id, entry in _read_pickle(path).items() if _is_pickle(path) else _pairs(path):
        if video_id in seen:
            counts["videos given twice"] += 1
            continue
        seen.add(video_id)
        yield video_id, entry
    if not seen:
        raise DataError(f"{path}: holds no videos")


class TranscriptFile:
    """Random access to a caption file: entries by video id, read from disk when asked for (JSON).

    Opening scans the file once and remembers where each video lies. Pickles are held in memory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Scan the file.

        Raises:
            DataError: as :func:`scan_captions`.
        """
        self.path = Path(path)
        self._places: dict[str, tuple[int, int]] = {}
        self._entries: dict[str, Any] | None = None
        if _is_pickle(path):
            self._entries = _read_pickle(path)
        else:
            with contextlib.closing(JsonObjectScanner(path)) as scanner:
                for video_id, _ in scanner.pairs():
                    self._places.setdefault(video_id, scanner.place)
        if not len(self):
            raise DataError(f"{path}: holds no videos")

    def __len__(self) -> int:
        return len(self._places if self._entries is None else self._entries)

    def __contains__(self, video_id: object) -> bool:
        return video_id in (self._places if self._entries is None else self._entries)

    def ids(self) -> list[str]:
        """Return the video ids in file order."""
        return list(self._places if self._entries is None else self._entries)

    def raw(self, video_id: str) -> str:
        """Return the unchecked JSON text of a video's entry.

        Raises:
            DataError: if the file has no such video.
        """
        if video_id not in self:
            raise DataError(f"{self.path}: no captions for video {video_id!r}")
        if self._entries is not None:
            entry = self._entries[video_id]
            return entry if isinstance(entry, str) else _as_json(entry)
        offset, length = self._places[video_id]
        with open(self.path, "rb") as file:
            file.seek(offset)
            try:
                return file.read(length).decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{self.path}: was changed since it was opened ({error}). Start again.") from error

    def __getitem__(self, video_id: str) -> Transcript:
        """Return the checked transcript of a video.

        Raises:
            DataError: if it is missing or malformed; names file and video.
        """
        try:
            return parse_transcript(self.raw(video_id))
        except DataError as error:
            raise DataError(f"{self.path}: video {video_id!r}: {error}") from error


def _pairs(path: str | os.PathLike[str]) -> Iterator[tuple[str, Any]]:
    with contextlib.closing(JsonObjectScanner(path)) as scanner:
        yield from scanner.pairs()


def _is_pickle(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix in _PICKLES


def _read_pickle(path: str | os.PathLike[str]) -> dict[str, Any]:
    loaded = safe_pickle.load(path)
    if not isinstance(loaded, dict) or any(not isinstance(key, str) for key in loaded):
        raise DataError(f"{path}: expected a pickled dict from video id to captions")
    return loaded


def _as_json(entry: Any) -> str:
    try:
        return json.dumps(entry, default=_plain)
    except (TypeError, ValueError, RecursionError):
        return "null"  # no value of JSON, so no transcript either, which its reader says


def _plain(value: Any) -> Any:
    """Return a numpy array or scalar as JSON knows it."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no value of JSON")


def _fault(start: Any, end: Any, text: Any) -> str:
    """Return why a clip cannot be used, or an empty string."""
    if not isinstance(text, str):
        return "clips whose text is not a string"
    if not text.strip():
        return "clips without text"
    for time in (start, end):
        if isinstance(time, bool) or not isinstance(time, Real) or not math.isfinite(time) or time < 0:
            return "clips whose time is not a number of seconds"
    return "clips that end before they start" if end < start else ""
