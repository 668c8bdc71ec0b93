"""Clips and the texts about them, out of the public text files of VIOLET and LAVENDER."""

import hashlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmpt.processors.annotations import AnnotationOptions, SkipReport, features_of
from mmpt.processors.base import PATH_KEYS, MetaProcessor, SplitOptions
from mmpt.processors.clip_text_files import READERS, RUN, ClipTextFile, Labels, Record, UnusableRecordError, video_of
from mmpt.utils.collection import uncollected
from mmpt.utils.errors import ConfigError
from mmpt.utils.options import read_options
from mmpt.utils.seeds import DEFAULT_SEED

__all__ = ["ClipTextMetaProcessor", "ClipTextOptions", "few_videos"]

logger = logging.getLogger(__name__)


@dataclass
class ClipTextOptions(SplitOptions, AnnotationOptions):
    """Text files ``txt_<task>.json``.

    Attributes:
        train_path: the file, which may be that of the other splits too; of pre-training and retrieval, also a list of
            several, or a mapping from a name to each.
        val_path: the same for validation.
        test_path: the same for tests.
        data_ratio: how much of training is used (few-shot): up to 1 the fraction of its videos, above 1 their number.
            What is chosen of the videos for a smaller ratio is among what is chosen for a larger one.
        data_ratio_seed: which videos these are.
    """

    train_path: Any = None
    val_path: Any = None
    test_path: Any = None
    data_ratio: float = 1.0
    data_ratio_seed: int = DEFAULT_SEED


class ClipTextMetaProcessor(MetaProcessor):
    """List the items of one kind of task.

    ====================  =========================================================================
    ``items``             ``(video_id, text_id)``
    ====================  =========================================================================
    retrieval             ``(video, caption)``; of a paragraph (DiDeMo) ``(video, [sentence, ..])``
    multiple_choice       ``(video, Choice)``
    open_ended            ``(video, OpenQuestion)``
    pretraining           ``(video, caption)``, the first one of each video
    ====================  =========================================================================

    Several items may be about one video. ``val_holdout`` applies where the file has no validation split of its own,
    and there is no other file for it. ``labels`` are the answers by class, ``num_labels`` their number; None where
    the file has no vocabulary of answers.
    """

    file_names_splits = True
    config_options: ClassVar[dict[str, type]] = {"dataset": ClipTextOptions}

    def __init__(self, config: Any, items: str = "retrieval") -> None:
        """Read the file.

        Raises:
            ConfigError: if a needed key is not set or cannot be used.
            DataError: if the file is wrong (names the record), the split is empty or too much of it cannot be used.
        """
        options = read_options(config, ClipTextOptions)
        paths = {key: _paths(getattr(options, key), key) for key in PATH_KEYS.values()}
        super().__init__({**dict(config), **{key: given[0] if given else None for key, given in paths.items()}})
        self.options, self.items = options, items
        if options.data_ratio <= 0 or (options.data_ratio > 1 and options.data_ratio % 1):
            raise ConfigError(f"dataset.data_ratio: {options.data_ratio} is neither a fraction nor a number of videos")
        if items not in ("retrieval", "pretraining") and len(paths[self.path_key]) > 1:
            raise ConfigError(f"dataset.{self.path_key}: names several files; {items} reads one")
        self.labels: list[str] | None = None
        with uncollected():
            self._read(paths, features_of(config))
        if self.split == "train" and options.data_ratio != 1:
            self.data = few_videos(self.data, options.data_ratio, options.data_ratio_seed)

    @property
    def num_labels(self) -> int | None:
        """Number of answers in the vocabulary; None where there is none."""
        return None if self.labels is None else len(self.labels)

    def _read(self, paths: Mapping[str, Sequence[str]], store: Any) -> None:
        for path in paths[self.path_key] or [str(self.path)]:
            file = ClipTextFile(path)
            labels = Labels(file)
            if self.items == "open_ended":
                self.labels = labels.names
            skips, listed = SkipReport(path, self.options.max_missing), 0
            for read, run in self._runs(file, paths):
                listed += len(run)
                self._take(run if read else list(self._usable(run, labels, skips)), store, skips)
            skips.close(listed)
        slots = {len(choice.options) for _, choice in self.data} if self.items == "multiple_choice" else set()
        if len(slots) > 1:  # questions with fewer options than others are filled up
            self.data = [(video, choice._replace(slots=max(slots))) for video, choice in self.data]

    def _usable(self, records: Iterable[Record], labels: Labels, skips: SkipReport) -> Iterator[tuple[str, Any]]:
        read = READERS[self.items]
        for record in records:
            video = video_of(record)
            try:
                yield video, read(record, labels)
            except UnusableRecordError as reason:
                skips.add(str(reason), str(record[0]).removeprefix(f"{skips.source}: "))

    def _take(self, items: Sequence[tuple[str, Any]], store: Any, skips: SkipReport) -> None:
        """Keep the items of which there is the video."""
        if store is None:
            self.data += items
            return
        there = store.holds([video for video, _ in items])
        self.data += itertools.compress(items, there)
        for video, _ in itertools.compress(items, ~there):
            skips.add("without frames" if self.options.frame_path else "without features", video)

    def _runs(self, file: ClipTextFile, paths: Mapping[str, Sequence[str]]) -> Iterator[tuple[bool, Sequence[Any]]]:
        """Yield this split thousands at a time: true and items that are read already, or false and records."""
        another = paths["train_path"] and paths["val_path"] and paths["train_path"] != paths["val_path"]
        self.val_holdout = 0.0 if another or file.has("valid") else self.options.val_holdout
        found = False
        if self.items == "pretraining" and not self.val_holdout:
            for run in file.pretraining_runs(self.split):
                found = True
                yield run
        records = iter(()) if found else self._of_split(file)
        while several := list(itertools.islice(records, RUN)):
            yield False, several

    def _of_split(self, file: ClipTextFile) -> Iterator[Record]:
        """Yield the records of this split, held-out ones among them or not."""
        split = "train" if self.split == "valid" and self.val_holdout else self.split
        if not self.val_holdout:
            empty = True
            for record in file.records(split):
                empty = False
                yield record
            if empty:
                self.in_split([])  # says so
            return
        keep = self.in_split([video_of(record) for record in file.records(split)])
        yield from (record for record, used in zip(file.records(split), keep, strict=True) if used)


def few_videos(items: Sequence[tuple[Any, Any]], ratio: float, seed: int) -> list[tuple[Any, Any]]:
    """Return the items of a part of the videos, in their order.

    Args:
        items: ``(video id, text)``.
        ratio: up to 1 the fraction of the videos, at least one; above 1 their number.
        seed: draws the videos; which they are depends on it and their ids alone.
    """
    videos = list(dict.fromkeys(video for video, _ in items))
    number = max(1, round(ratio * len(videos))) if ratio <= 1 else int(ratio)
    if number > len(videos):
        logger.warning("dataset.data_ratio: %d videos are wanted, and there are %d", number, len(videos))
    key = int(seed).to_bytes(16, "little", signed=True)
    drawn = sorted(videos, key=lambda video: hashlib.blake2b(str(video).encode(), key=key, digest_size=8).digest())
    kept = set(drawn[:number])
    return [item for item in items if item[0] in kept]


def _paths(given: Any, key: str) -> list[str]:
    """Return the files of a key: a path, a list of paths, or a mapping from names to paths."""
    values = list(given.values()) if isinstance(given, Mapping) else given if isinstance(given, list) else [given]
    if given is None:
        return []
    if not values or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"dataset.{key}: {given!r} is no path, list of paths, or mapping from names to paths")
    return values
