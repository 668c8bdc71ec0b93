"""Questions about images or segments, taken over from elsewhere: what they are about into a store, they into lines.

:mod:`mmpt.store.tfrecord_questions` says what a line holds.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.store.extraction_job import ExtractionSummary
from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.store.segment_writer import SegmentRecord, SegmentStoreWriter
from mmpt.utils.errors import DataError
from mmpt.utils.files import atomic_open, sole_writer

__all__ = ["Entry", "Imported", "write_questions"]

#: What belongs into a store: images of a frame store, or segments.
Entry = tuple[str, Sequence[bytes] | SegmentRecord]


class Imported(NamedTuple):
    """One record: what goes into the store, and its line of the file of questions."""

    entries: Sequence[Entry]
    line: Mapping[str, Any]


def write_questions(
    items: Iterator[tuple[str, Callable[[], Imported]]],
    folder: str | Path,
    questions: str | Path,
    producer: Mapping[str, Any],
    force: bool = False,
) -> ExtractionSummary:
    """Write images and questions; of each item its place, and what reads it or raises DataError.

    An image that is in the store is left as it is unless ``force``; the file of questions appears when all is done.
    """
    began, summary = time.perf_counter(), ExtractionSummary("questions", skipped_because="")
    seen: set[str] = set()
    with (
        sole_writer(Path(folder) / ".lock"),
        _Stores(folder, producer, force) as stores,
        atomic_open(questions) as file,
    ):
        for place, read in items:
            try:
                item = read()
                if item.line["id"] in seen:
                    raise DataError(f"{place}: the id {item.line['id']!r} comes twice")
                for entry in item.entries:
                    summary.frames += stores.add(entry)
            except DataError as error:
                summary.failures.append((place, str(error)))
                continue
            seen.add(item.line["id"])
            file.write(json.dumps(item.line, ensure_ascii=False) + "\n")
            summary.done += 1
        if not summary.done:
            reason = f"the first: {summary.failures[0][1]}" if summary.failures else "there was none"
            raise DataError(f"{questions}: no question could be used; {reason}")
    summary.wall_seconds = time.perf_counter() - began
    return summary


class _Stores:
    """The frame or segment store of an import, opened by the first entry of its kind."""

    def __init__(self, folder: str | Path, producer: Mapping[str, Any], force: bool) -> None:
        self.folder, self.producer, self.force = folder, producer, force
        self.writer: FrameStoreWriter | SegmentStoreWriter | None = None
        self.added: set[str] = set()

    def __enter__(self) -> "_Stores":
        return self

    def __exit__(self, *error: Any) -> None:
        if self.writer is not None:
            self.writer.__exit__(*error)

    def add(self, entry: Entry) -> int:
        """Add an entry if it is not there; return the number of its images."""
        name, content = entry
        if self.writer is None:
            if isinstance(content, SegmentRecord):
                fields = frozenset({"images", "tokens", "spectrograms"})
                self.writer = SegmentStoreWriter(self.folder, fields, self.producer)
            else:
                self.writer = FrameStoreWriter(self.folder, self.producer)
            self.writer.__enter__()
        if name in self.added or (name in self.writer.stored and not self.force):
            return 0
        if isinstance(content, SegmentRecord):
            assert isinstance(self.writer, SegmentStoreWriter)
            self.writer.add(name, content)
            count = len(content.images)
        else:
            assert isinstance(self.writer, FrameStoreWriter)
            self.writer.append(name, content)
            count = len(content)
        self.added.add(name)
        return count
