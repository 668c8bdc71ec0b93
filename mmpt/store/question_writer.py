"""Questions about images or segments, taken over from elsewhere: what they are about into a store, they into lines.

:mod:`mmpt.store.tfrecord_questions` says what a line holds.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.store.extraction_job import NO_MANIFEST, ExtractionSummary
from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.store.segment_writer import SegmentRecord, SegmentStoreWriter
from mmpt.utils.errors import DataError
from mmpt.utils.files import atomic_open, sole_writer

__all__ = ["VIDEOS_PER_SHARD", "Content", "Entry", "Imported", "write_questions"]

logger = logging.getLogger(__name__)

#: Entries of a shard of each kind of store, some hundred megabytes: what a killed run loses.
VIDEOS_PER_SHARD = {"frames": 2048, "segments": 512}
_FIELDS = frozenset({"images", "tokens", "spectrograms"})

#: What belongs into a store: images of a frame store, or segments.
Content = Sequence[bytes] | SegmentRecord
#: The id that something has in the store, and what reads, draws or hears it if it is not there yet.
Entry = tuple[str, Callable[[], Content]]


class Imported(NamedTuple):
    """One record: what goes into the store, and its line of the file of questions."""

    entries: Sequence[Entry]
    line: Mapping[str, Any]


def write_questions(
    items: Iterator[tuple[str, Callable[[], Imported]]],
    folder: str | Path,
    questions: str | Path,
    settings: Mapping[str, Any],
    kind: str = "frames",
    force: bool = False,
    videos_per_shard: int | None = None,
) -> ExtractionSummary:
    """Write images and questions; of each item its place, and what reads it or raises DataError.

    What is in the store is left as it is unless ``force``, and is not read again. The file of questions is always
    written anew; it appears when the store is complete.

    Args:
        items: the questions.
        folder: of the store.
        questions: the file.
        settings: what the content of the store depends on.
        kind: of the store, ``frames`` or ``segments``.
        force: write anew what is in the store.
        videos_per_shard: entries of a shard; None: see :data:`VIDEOS_PER_SHARD`.

    Returns:
        Counts of questions; those whose images or segments were all there are ``skipped``.

    Raises:
        DataError: if the store was made with other settings, or no question could be used.
    """
    began, summary = time.perf_counter(), ExtractionSummary(kind, skipped_because="", full_list=NO_MANIFEST)
    seen: set[str] = set()
    size = VIDEOS_PER_SHARD[kind] if videos_per_shard is None else videos_per_shard
    with (
        sole_writer(Path(folder) / ".lock"),
        atomic_open(questions) as file,  # entered before the store, so that it appears after the last shard
        _opened(kind, folder, settings, size) as writer,
    ):
        store = _Additions(writer, force)
        for place, read in items:
            try:
                item = read()
                if item.line["id"] in seen:
                    raise DataError(f"{place}: the id {item.line['id']!r} comes twice")
                images, known = store.images, all(store.was_there(name) for name, _ in item.entries)
                for name, content in item.entries:
                    store.add(name, content)
            except DataError as error:
                summary.failures.append((place, str(error)))
                logger.info("%s: %s", place, error)
                continue
            seen.add(item.line["id"])
            file.write(json.dumps(item.line, ensure_ascii=False) + "\n")
            summary.frames += store.images - images
            summary.skipped += known
            summary.done += not known
        if not seen:
            reason = f"the first: {summary.failures[0][1]}" if summary.failures else "there was none"
            raise DataError(f"{questions}: no question could be used; {reason}")
    summary.wall_seconds = time.perf_counter() - began
    return summary


def _opened(
    kind: str, folder: str | Path, settings: Mapping[str, Any], size: int
) -> FrameStoreWriter | SegmentStoreWriter:
    if kind == "segments":
        return SegmentStoreWriter(folder, _FIELDS, settings, size, settings=settings)
    return FrameStoreWriter(folder, settings, size, settings=settings)


class _Additions:
    """What an import adds to a store: each entry once. ``images`` counts theirs."""

    def __init__(self, writer: FrameStoreWriter | SegmentStoreWriter, force: bool) -> None:
        self.writer, self.images = writer, 0
        self._there = set() if force else set(writer.stored)
        self._added: set[str] = set()

    def was_there(self, name: str) -> bool:
        """Tell whether an entry is left as an earlier run stored it."""
        return name in self._there

    def add(self, name: str, content: Callable[[], Content]) -> None:
        """Add an entry if it is not there."""
        if name in self._there or name in self._added:
            return
        made = content()
        if isinstance(made, SegmentRecord):
            assert isinstance(self.writer, SegmentStoreWriter)
            self.writer.add(name, made)
            self.images += len(made.images)
        else:
            assert isinstance(self.writer, FrameStoreWriter)
            self.writer.append(name, made)
            self.images += len(made)
        self._added.add(name)
