"""A corpus of one's own, for every kind of task, from one file of rows: docs/own_corpus.md.

The file is JSON Lines, CSV, TSV or Parquet with the columns ``video``, ``start``, ``end``, ``text``, ``question``,
``options``, ``answer``, ``label`` and ``split``, of which a task reads those that it needs.
"""

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from mmpt.processors.annotations import AnnotationOptions, SkipReport, features_of
from mmpt.processors.base import MetaProcessor, SplitOptions, VideoProcessor
from mmpt.processors.class_names import BACKGROUND_NAME, list_classes, read_class_names
from mmpt.processors.corpus_rows import KINDS, CorpusRow, read_corpus
from mmpt.processors.msrvtt_qa import Choice
from mmpt.processors.youcook import YoucookVideoProcessor
from mmpt.utils.errors import ConfigError, DataError, nearest
from mmpt.utils.options import read_options

__all__ = ["CorpusMetaProcessor", "CorpusOptions", "CorpusVideoProcessor"]

logger = logging.getLogger(__name__)

_TOO_LATE = "that begin after the features end"


@dataclass
class CorpusOptions(SplitOptions, AnnotationOptions):
    """A corpus of one's own.

    Attributes:
        columns: field -> name of its column, for fields that are called something else in the file.
        label_path: the names of the classes, .json ``{id: name}`` or a text file whose line n (from 0) names
            class n; without it they are the labels of the file, sorted.
        background: segmentation: the class of a second without a segment.
    """

    columns: dict[str, str] = field(default_factory=dict)
    label_path: str | None = None
    background: int = 0


class CorpusMetaProcessor(MetaProcessor):
    """List the items of one kind of task.

    =================  ===========================================================================
    ``items``          ``(video_id, text_id)``
    =================  ===========================================================================
    retrieval          ``(clip, text)``
    qa                 ``(clip, Choice)``: the options, the question before each
    classification     ``(clip, Choice)``: all labels are the options
    captioning         ``(clip, text)``; all texts of a clip are its references (NLGPredictor)
    segmentation       ``(video, {"start", "end", "label"})`` as COIN: all segments of a video
    =================  ===========================================================================

    A clip is a video, or ``(video, start, end)`` in whole seconds, rounded outwards. Rows with a ``split`` are of
    that split alone; ``val_holdout`` applies where no row is marked for validation, and validation has no file.
    ``labels`` are the names of the classes, by class id, and ``num_labels`` their number; None where the task has
    none. ``left_out`` says of segmentation how many videos and segments could not be used (as COIN).
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": CorpusOptions}

    def __init__(self, config: Any, items: str = "retrieval") -> None:
        """Read the file.

        Raises:
            ConfigError: if a needed key is not set or does not fit the file.
            DataError: if the file is wrong (names line and column), the split is empty, or too much of it cannot be
                used.
        """
        super().__init__(config)
        self.options = read_options(config, CorpusOptions)
        self.items, self.background = items, self.options.background
        rows = read_corpus(self.path, items, self.options.columns, self.options.max_missing)
        self.labels: list[str] | None = self._class_names(rows) if KINDS[items].key == "label" else None
        rows = self._of_split(rows)
        rows = [row for row, used in zip(rows, self.in_split([row.video for row in rows]), strict=True) if used]
        rows = self._usable(rows, features_of(config))
        self.data = self._build(rows)

    @property
    def num_labels(self) -> int | None:
        """Number of classes, in segmentation with the background; None where the task has none."""
        return None if self.labels is None else len(self.labels)

    def _of_split(self, rows: Sequence[CorpusRow]) -> list[CorpusRow]:
        """Return the rows of this split; ``val_holdout`` is switched off where there are rows for validation alone."""
        marked = Counter(row.split for row in rows)
        train, valid, test = self.options.train_path, self.options.val_path, self.options.test_path
        if set(marked) == {""}:
            if train and train == test:
                raise ConfigError(
                    f"dataset.test_path: {test} is also train_path, and it has no column "
                    f"{self._column('split')!r} that says which rows are which; add one, or write a file per split"
                )
            if train and valid and train != valid:
                self.val_holdout = 0.0
            return list(rows)
        if "" in marked:
            first = next(row for row in rows if not row.split)
            raise DataError(f"{first.place}: column {self._column('split')!r}: has no value, and other rows have one")
        if "valid" in marked:
            self.val_holdout = 0.0
        split = "train" if self.split == "valid" and self.val_holdout else self.split
        if split not in marked:
            there = ", ".join(f"{count} of {name}" for name, count in sorted(marked.items()))
            hint = "; dataset.val_holdout takes a share of train" if split == "valid" else ""
            raise DataError(f"{self.path}: no row is of split {split!r} (there are {there}){hint}")
        self._warn_of_shared_videos(rows)
        return [row for row in rows if row.split == split]

    def _warn_of_shared_videos(self, rows: Sequence[CorpusRow]) -> None:
        trained = {row.video for row in rows if row.split == "train"}
        shared = sorted({row.video for row in rows if row.split != "train" and row.video in trained})
        if shared:
            logger.warning("%s: %d videos are in train and in another split: %s", self.path, len(shared), shared[0])

    def _usable(self, rows: Sequence[CorpusRow], store: Any) -> list[CorpusRow]:
        """Return the rows that have features; the others are counted, and too many are an error."""
        skips = SkipReport(self.path, self.options.max_missing, "rows")
        seconds: dict[str, int] = {}
        usable = []
        for row in rows:
            if store is not None and row.video not in seconds:
                seconds[row.video] = len(store[row.video]) if row.video in store else -1
            reason = _reason(row, seconds.get(row.video))
            if reason:
                skips.add(reason, f"{row.video}, {row.place.rpartition(': ')[2]}")
            if not reason:
                usable.append(row)
            elif self.items == "segmentation" and seconds.get(row.video, 1) > 0:
                usable.append(dataclasses.replace(row, label=""))  # the video itself can be used
        skips.close(len(rows))
        self.left_out = {
            "skipped": sum(seconds.get(video, 1) < 1 for video in {row.video for row in rows}),
            "skipped_segments": skips.counts[_TOO_LATE],
            "cut_segments": sum(
                bool(row.label and row.end) and math.ceil(row.end or 0) > seconds.get(row.video, math.inf)
                for row in usable
            ),
        }
        return usable

    def _build(self, rows: Sequence[CorpusRow]) -> list[tuple[Any, Any]]:
        builders: dict[str, Callable[[Sequence[CorpusRow]], list[tuple[Any, Any]]]] = {
            "retrieval": lambda rows: [(row.clip, row.text) for row in rows],
            "captioning": lambda rows: [(row.clip, row.text) for row in rows],
            "qa": _questions,
            "classification": self._classifications,
            "segmentation": self._segmentations,
        }
        return builders[self.items](rows)

    def _classifications(self, rows: Sequence[CorpusRow]) -> list[tuple[Any, Any]]:
        assert self.labels is not None
        labels, ids = tuple(self.labels), self._ids()
        return [(row.clip, Choice(ids[row.label], labels, row.question)) for row in rows]

    def _segmentations(self, rows: Sequence[CorpusRow]) -> list[tuple[Any, Any]]:
        ids = self._ids()
        videos: dict[str, dict[str, list[Any]]] = {}
        for row in rows:
            segments = videos.setdefault(row.video, {"start": [], "end": [], "label": []})
            if row.label:
                for key, value in zip(segments, (row.start, row.end, ids[row.label]), strict=True):
                    segments[key].append(value)
        return list(videos.items())

    def _ids(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.labels or ()) if name}

    def _class_names(self, rows: Sequence[CorpusRow]) -> list[str]:
        """Return the names of the classes by class id."""
        found = sorted({row.label for row in rows if row.label})
        path = self.options.label_path
        named = (self.options.train_path, self.options.val_path, self.options.test_path)
        several = len({given for given in named if given}) > 1
        if self.items == "segmentation" and not path and (several or not rows[0].split):
            raise ConfigError(
                "dataset.label_path: not set. It names the file of all classes, so that every split numbers them "
                "alike; only one file with a column 'split', which holds all splits, does without"
            )
        given = read_class_names(path) if path else dict(enumerate(found))
        for name, count in Counter(given.values()).items():
            if name and count > 1:
                raise DataError(f"{path}: names {name!r} {count} times (dataset.label_path)")
        if self.items == "classification":
            labels = [name for _, name in sorted(given.items()) if name]
            if len(labels) < 2:
                raise DataError(f"{path or self.path}: a choice needs two labels or more, found {labels}")
        elif path:
            labels = self._with_background(given, path)
        else:
            free = (number for number in range(len(found) + 1) if number != self.background)
            labels = list_classes(dict(zip(free, found, strict=False)), self.background, self.path)
        self._refuse_unknown(rows, labels)
        return labels

    def _with_background(self, given: dict[int, str], path: str) -> list[str]:
        steps = {number: name for number, name in given.items() if number != self.background}
        return list_classes(steps, self.background, path, given.get(self.background, BACKGROUND_NAME))

    def _refuse_unknown(self, rows: Sequence[CorpusRow], labels: Sequence[str]) -> None:
        source, known = self.options.label_path or self.path, set(labels)
        for row in rows:
            where = f"{row.place}: column {self._column('label')!r}: {row.label!r}"
            if row.label and row.label not in known:
                raise DataError(f"{where} is not named in {source}.{nearest(row.label, labels)}")
            if self.items == "segmentation" and row.label == labels[self.background]:
                remedy = "give that class a name of its own there, and no rows"
                if self.background == 0 and row.label != BACKGROUND_NAME and not str(source).endswith(".json"):
                    remedy = f"begin the file with a line {BACKGROUND_NAME}, before those of the labels"
                raise DataError(
                    f"{where} is class {self.background} of {source}, that of seconds without a segment "
                    f"(dataset.background): {remedy}"
                )

    def _column(self, name: str) -> str:
        return self.options.columns.get(name, name)


class CorpusVideoProcessor(YoucookVideoProcessor):
    """Read the features of a clip: all ``(seconds, dim)`` of a video, or the seconds start to end of it."""

    def __call__(self, video_id: Any) -> np.ndarray:
        """Return the features of a video id, or of ``(video_id, start, end)``.

        Raises:
            DataError: if the video has no features, or none in the clip; names folder and clip.
        """
        return super().__call__(video_id) if isinstance(video_id, tuple) else VideoProcessor.__call__(self, video_id)


def _reason(row: CorpusRow, seconds: int | None) -> str:
    """Say why a row cannot be used, with features of so many seconds (-1: none, None: not known); "" if it can."""
    if seconds is not None and seconds < 0:
        return "without features"
    if seconds == 0:
        return "whose features hold no second"
    if seconds is not None and row.start is not None and int(row.start) >= seconds:
        return _TOO_LATE
    if row.options and row.options.count(row.options[row.answer]) > 1:
        return "whose right option is there twice"
    return ""


def _questions(rows: Sequence[CorpusRow]) -> list[tuple[Any, Any]]:
    numbers = {len(row.options) for row in rows}
    slots = max(numbers) if len(numbers) > 1 else 0
    return [(row.clip, Choice(row.answer, row.options, row.question, slots)) for row in rows]
