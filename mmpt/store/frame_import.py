"""Published frame files into a frame store: pickled dicts and TSVs of base64 images, row by row.

The command is ``scripts/frame_extractor/import_frames.py``. Images are kept byte for byte, PNG as well as JPEG.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmpt.store.extraction_job import ExtractionSummary, printable
from mmpt.store.extraction_manifest import Manifest
from mmpt.store.frame_rows import FrameRow, find_frame_column, pickle_rows, tsv_rows
from mmpt.store.frame_writer import VIDEOS_PER_SHARD, FrameStoreWriter
from mmpt.utils import safe_pickle
from mmpt.utils.errors import DataError
from mmpt.utils.files import sole_writer

__all__ = ["FrameImportOptions", "import_frames"]

logger = logging.getLogger(__name__)

_PICKLES = (".pkl", ".pickle")
_INDEXES = (".lineidx", ".id2lineidx.pkl")


@dataclass(frozen=True)
class FrameImportOptions:
    """How to read.

    ``column``: of the first frame in TSVs, counted from 0 (the id); None: found file by file. ``id_is_path``: the
    first column is the path of a file, and the id its stem. ``force``: replace videos that the store has.
    """

    column: int | None = None
    id_is_path: bool = False
    videos_per_shard: int = VIDEOS_PER_SHARD
    force: bool = False


def import_frames(
    files: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    options: FrameImportOptions | None = None,
    progress: bool = False,
) -> ExtractionSummary:
    """Add the videos of files to a store; those that it has are skipped, so that a second run goes on.

    Beside a TSV ``<name>.id2lineidx.pkl`` says the ids of its rows and ``<name>.lineidx`` how many there are; rows that
    they promise and the TSV lacks count as failed, as do damaged ones. Of an id that comes twice the first row counts.

    Raises:
        DataError: if a file is missing, no file of frames, or of two layouts; names it. What was complete is kept.
        StorageError: if the disk is full or the folder may not be written.
    """
    options = options or FrameImportOptions()
    began = time.perf_counter()
    if options.column is not None and options.column < 1:
        raise DataError(f"--frames-from-column {options.column}: column 0 is the id; the first frame is in 1 or later")
    if options.videos_per_shard < 1:
        raise DataError(f"--videos-per-shard {options.videos_per_shard}: a shard holds at least 1 video")
    readers = [_reader(Path(file), options) for file in files]  # all are looked at before the first is read
    with sole_writer(Path(folder) / ".lock"):
        manifest = Manifest(folder, {"tool": "import_frames"})
        job = _Import(manifest, options.force)
        writer = FrameStoreWriter(folder, {"tool": "import_frames"}, options.videos_per_shard)
        with manifest.saved(), writer:
            for reader in readers:
                job.add(reader, writer, progress)
            writer.close_shard()
            writer.drop_useless_shards()
    job.summary.wall_seconds = time.perf_counter() - began
    return job.summary


class _Reader:
    """The rows of one file, and what its index files promise."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: Iterable[FrameRow] = pickle_rows(path)
        self.told = "a pickle, read into memory as a whole"
        self.promised: int | None = None
        self.ids: dict[int, str] | None = None
        self.left_out: Counter[str] = Counter()


def _reader(path: Path, options: FrameImportOptions) -> _Reader:
    if path.name.endswith(_INDEXES):
        raise DataError(f"{path}: an index of rows holds no frames; name the TSV that it belongs to")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    reader = _Reader(path)
    if path.suffix in _PICKLES:
        return reader
    column = find_frame_column(path, options.column)
    how = "as --frames-from-column says" if options.column is not None else "as its first rows show"
    reader.told = f"frames from column {column} on (the id is column 0), {how}"
    logger.info("%s: %s", path, reader.told)
    reader.ids = _read_ids(path)
    lineidx = path.with_suffix(".lineidx")
    if reader.ids is None and lineidx.is_file():
        reader.promised = _count_lines(lineidx)
    rows = tsv_rows(path, column, reader.ids, reader.left_out)
    reader.rows = _stems(rows) if options.id_is_path else rows
    return reader


def _stems(rows: Iterator[FrameRow]) -> Iterator[FrameRow]:
    for row in rows:
        row.video_id = Path(row.video_id).stem if row.error is None else row.video_id
        yield row


def _read_ids(path: Path) -> dict[int, str] | None:
    """Read ``<name>.id2lineidx.pkl``: offset of a row -> its id; None if there is none."""
    index = path.with_name(f"{path.name.removesuffix('.tsv')}.id2lineidx.pkl")
    if not index.is_file():
        return None
    found = safe_pickle.load(index)
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, int) for k, v in found.items()):
        raise DataError(f"{index}: not a dict of video id to the offset of its row")
    ids = {offset: video_id for video_id, offset in found.items()}
    if len(ids) < len(found):
        raise DataError(f"{index}: several of its {len(found)} ids name the same row")
    return ids


def _count_lines(lineidx: Path) -> int:
    with open(lineidx, "rb") as file:
        return sum(1 for line in file if line.strip())


class _Import:
    """Counts and records of one run."""

    def __init__(self, manifest: Manifest, force: bool) -> None:
        self.manifest, self.force = manifest, force
        self.summary = ExtractionSummary("frames", skipped_because="")
        self.seen: set[str] = set()

    def add(self, reader: _Reader, writer: FrameStoreWriter, progress: bool) -> None:
        """Add the rows of one file."""
        from tqdm import tqdm

        count, unread = 0, dict(reader.ids or {})
        total = reader.promised if reader.ids is None else len(reader.ids)
        for row in tqdm(reader.rows, desc=reader.path.name, total=total, unit="video", disable=not progress):
            count += 1
            unread.pop(row.offset, None)
            self._add_row(row, writer)
        self.summary.notes.append((str(reader.path), reader.told))
        for reason, rows in reader.left_out.items():
            self.summary.notes.append((str(reader.path), f"{rows} rows {reason}"))
        for offset, video_id in unread.items():
            self._fail(video_id, f"{reader.path}: no row begins at byte {offset}, where its index says that it does")
        for number in range(count, reader.promised or 0):
            self._fail(f"{reader.path}, row {number + 1}", "its .lineidx names this row, but the file has fewer")

    def _add_row(self, row: FrameRow, writer: FrameStoreWriter) -> None:
        if row.video_id in self.seen:
            self.summary.notes.append((row.video_id, f"{row.place}: the id comes twice; the first row counts"))
            return
        if row.error is None:
            self.seen.add(row.video_id)
        if row.video_id in writer.stored and not self.force:
            self.summary.skipped += 1
            return
        if row.error is not None:
            told = row.error if row.video_id == row.place else f"{row.place}: {row.error}"  # its place, without an id
            self._fail(row.video_id, told)
            return
        writer.append(row.video_id, row.images)
        self.summary.done += 1
        self.summary.frames += len(row.images)
        if row.video_id in self.manifest.entries:  # it failed in an earlier run
            self.manifest.record(row.video_id, {"status": "done", "frames": len(row.images)})

    def _fail(self, video_id: str, reason: str) -> None:
        video_id, reason = printable(video_id), printable(reason)
        self.manifest.record(video_id, {"status": "failed", "reason": reason})
        self.summary.failures.append((video_id, reason))
