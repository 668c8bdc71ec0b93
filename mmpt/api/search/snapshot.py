"""What an index holds as of its last commit: entries of videos and mapped rows; readers and writers see it so."""

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.api.search.layout import CLIP, CLIPS, INDEX, THUMBNAILS, VECTORS, IndexSettings, mending, path_in
from mmpt.store.extraction_manifest import file_identity, read_entries
from mmpt.utils.errors import DataError, shown

__all__ = ["Rows", "Snapshot", "checksum", "damaged_entry", "high_water", "live_entries", "wrong_entries"]

_ATTEMPTS = 5
_COUNTS = ("first", "rows", "rows_end", "thumbnails_end", "crc32", "bytes")


@dataclass(frozen=True)
class Rows:
    """The clips of one video: rows ``first`` to ``first + rows``, and their video's key and record."""

    key: str
    entry: dict[str, Any]

    @property
    def span(self) -> slice:
        """The rows as a slice."""
        return slice(self.entry["first"], self.entry["first"] + self.entry["rows"])


def live_entries(entries: dict[str, dict[str, Any]]) -> list[Rows]:
    """Return the videos that are in the index, in the order of their rows."""
    done = [Rows(key, entry) for key, entry in entries.items() if entry["status"] == "done"]
    return sorted(done, key=lambda rows: (rows.entry["first"], rows.key))


def wrong_entries(entries: dict[str, dict[str, Any]]) -> list[str]:
    """Return the keys of entries that cannot be: without their rows, or of rows that are another video's too."""
    wrong = [key for key, entry in entries.items() if not _is_whole(entry)]
    end = 0
    for video in live_entries({key: entry for key, entry in entries.items() if key not in wrong}):
        if video.span.start < end and video.entry["rows"]:
            wrong.append(video.key)
        end = max(end, video.span.stop)
    return wrong


def _is_whole(entry: dict[str, Any]) -> bool:
    if not all(_is_count(entry[name]) for name in _COUNTS if name in entry):
        return False
    if entry["status"] != "done":
        return True
    needed = ("first", "rows", "rows_end", "thumbnails_end")
    return all(name in entry for name in needed) and bool(entry["first"] + entry["rows"] <= entry["rows_end"])


def high_water(entries: dict[str, dict[str, Any]]) -> tuple[int, int]:
    """Return how many rows, and how many bytes of thumbnails, were ever committed."""
    rows = max((entry.get("rows_end", 0) for entry in entries.values()), default=0)
    return rows, max((entry.get("thumbnails_end", 0) for entry in entries.values()), default=0)


class Snapshot:
    """The commit that is there when it is opened; later ones do not change it.

    Attributes:
        settings: of the index.
        videos: the videos in the order of their rows.
        vectors: float16 (rows, dim), mapped; also rows that no video has any more.
        clips: CLIP (rows,), mapped.
        live: bool (rows,): whether a video has the row.

    Raises:
        DataError: if there is no index, or a file is missing, cut or damaged; names it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        for attempt in range(_ATTEMPTS):
            self._settings_file = file_identity(self.folder / INDEX)  # before it is read, as with the manifest
            self.settings = IndexSettings.read(self.folder)
            try:
                self._open()
                return
            except (DataError, FileNotFoundError) as error:
                # A compaction may have removed these data meanwhile.
                if attempt + 1 == _ATTEMPTS or IndexSettings.read(self.folder).data == self.settings.data:
                    if isinstance(error, DataError):
                        raise
                    raise DataError(
                        f"{error.filename}: no such file. Mend the index with: {mending(self.data)}"
                    ) from error

    def _open(self) -> None:
        self.data = self.folder / self.settings.data
        source = self.data / "manifest.json"
        self._manifest_file = file_identity(source)
        entries = read_entries(self.data)
        for key in entries:
            path_in(key, len(self.settings.roots), source)
        if wrong := wrong_entries(entries):
            raise DataError(damaged_entry(self.data, wrong[0]))
        self.failed = {key: str(entry.get("reason")) for key, entry in entries.items() if entry["status"] == "failed"}
        self.videos = live_entries(entries)
        count, self.thumbnail_bytes = high_water(entries)
        self.vectors = _mapped(self.data / VECTORS, np.dtype("<f2"), (count, self.settings.dim))
        self.clips = _mapped(self.data / CLIPS, CLIP, (count,))
        self._thumbnails = open(self.data / THUMBNAILS, "rb")  # noqa: SIM115 (stays open: a compaction may remove it)
        self._firsts = np.array([video.entry["first"] for video in self.videos], np.int64)
        self.live = np.zeros(count, bool)
        for video in self.videos:
            self.live[video.span] = True

    def is_latest(self) -> bool:
        """Tell whether no run has ended since; looks at two files without reading them.

        What a run under way has committed is in the journal, and changes neither.
        """
        found = file_identity(self.folder / INDEX), file_identity(self.data / "manifest.json")
        return found == (self._settings_file, self._manifest_file)

    def video_of(self, row: int) -> Rows:
        """Return the video that a live row is of."""
        return self.videos[int(np.searchsorted(self._firsts, row, side="right")) - 1]

    def thumbnail(self, row: int) -> bytes | None:
        """Return the JPEG file of a clip, None if it has none."""
        clip = self.clips[row]
        begin, size = int(clip["thumbnail"]), int(clip["thumbnail_bytes"])
        if size <= 0 or begin < 0 or begin + size > self.thumbnail_bytes:
            return None
        return os.pread(self._thumbnails.fileno(), size, begin)

    def damaged(self) -> Iterator[str]:
        """Yield the keys of videos whose rows or thumbnails are not what was written; reads everything."""
        for video in self.videos:
            clips = self.clips[video.span]
            pictures = b"".join(self.thumbnail(row) or b"" for row in range(video.span.start, video.span.stop))
            if checksum(self.vectors[video.span], clips, pictures) != video.entry.get("crc32"):
                yield video.key


def damaged_entry(data: Path, key: str) -> str:
    """Return what is told of an entry that cannot be, and how it is mended."""
    return f"{data / 'manifest.json'}: the entry of {shown(key)} is damaged. Mend it with: {mending(data)}"


def checksum(vectors: np.ndarray, clips: np.ndarray, pictures: bytes) -> int:
    """Return the CRC-32 of what is stored of a video; places of thumbnails do not count, as a compaction moves them."""
    times = np.stack([clips["start"], clips["end"], clips["thumbnail_bytes"].astype(np.float64)])
    return zlib.crc32(pictures, zlib.crc32(times.tobytes(), zlib.crc32(np.ascontiguousarray(vectors).tobytes())))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60


def _mapped(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if not shape[0]:
        return np.empty(shape, dtype)
    wanted = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    size = os.stat(path).st_size
    if size < wanted:
        raise DataError(f"{path}: {size} bytes, of {wanted}: the file was cut. Mend it with: {mending(path.parent)}")
    return np.asarray(np.memmap(path, dtype, mode="r", shape=shape))
