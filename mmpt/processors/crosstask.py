"""CrossTask step localisation: videos of tasks whose steps are known, with the seconds that each step takes.

How the keys of ``dataset`` are read, so that no split depends on which features are on disk:

* ``train_csv_path`` lists all videos. Those of ``val_csv_path`` are taken out. Of each task of ``primary_path`` with
  more than ``n_train`` remaining videos, ``n_train`` are drawn (``split_seed``) for training, and the others are the
  **test** split. All other videos are for training.
* The **train** split is the training videos; with ``val_holdout``, without the share that is held out.
* The **valid** split is, with ``val_holdout``, that share; without it, the videos of ``val_csv_path``.
* ``train_path``, ``val_path`` and ``test_path`` only say, here as everywhere, that there is such a split: the file
  must exist, and what it lists is not read.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from mmpt.processors.annotations import AnnotationOptions, SkipReport, features_of
from mmpt.processors.base import Aligner, AlignerOptions, MetaProcessor, SplitOptions, TextProcessor
from mmpt.processors.crosstask_files import (
    Segment,
    StepTask,
    annotation_name,
    read_segments,
    read_tasks,
    read_video_list,
    split_videos,
    step_targets,
)
from mmpt.processors.windows import WindowOptions, Windows
from mmpt.utils.errors import ConfigError, DataError, nearest
from mmpt.utils.files import resolve_path
from mmpt.utils.options import read_options
from mmpt.utils.safe_paths import path_below

__all__ = [
    "CrossTaskAligner",
    "CrossTaskAlignerOptions",
    "CrossTaskMetaProcessor",
    "CrossTaskOptions",
    "CrossTaskTextProcessor",
    "StepVideo",
]

logger = logging.getLogger(__name__)


@dataclass
class CrossTaskOptions(SplitOptions, AnnotationOptions):
    """Lists of CrossTask.

    Attributes:
        train_csv_path: videos.csv, all videos.
        val_csv_path: videos_val.csv, the videos that are neither trained nor tested on.
        primary_path: tasks_primary.txt, the tasks that are tested on.
        related_path: tasks_related.txt, tasks that are only trained on, where their videos are annotated.
        annotation_path: the folder of annotations, ``<task>_<video>.csv``.
        n_train: training videos of a primary task; the others are for testing.
        split_seed: seed of the draw of these videos.
    """

    train_csv_path: str | None = None
    val_csv_path: str | None = None
    primary_path: str | None = None
    related_path: str | None = None
    annotation_path: str | None = None
    n_train: int = 30
    split_seed: int = 0


@dataclass
class CrossTaskAlignerOptions(AlignerOptions, WindowOptions):
    """Sizes of the model input, and the windows that a video is cut into."""


class StepVideo(NamedTuple):
    """A video of a task: the names of the task's steps in order, and when they occur."""

    video_id: str
    task: str
    steps: tuple[str, ...]
    segments: tuple[Segment, ...]


class CrossTaskMetaProcessor(MetaProcessor):
    """List ``(StepVideo, names of the steps)`` of one split (the module says how it is drawn).

    Videos without features or annotation are left out after the split is drawn, and counted, and so are annotated
    segments that are none. Related tasks of which no video is annotated, as in the public release, cannot be trained
    on; that is logged and is no fault. Of the task lists, only tasks whose videos are used must be right.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": CrossTaskOptions}

    def __init__(self, config: Any) -> None:
        """Read lists and annotations.

        Raises:
            ConfigError: if a needed key is not set.
            DataError: if a file is wrong, the split is empty or too much of it cannot be used.
        """
        super().__init__(config)
        self.options = read_options(config, CrossTaskOptions)
        if self.options.n_train < 0 or self.options.split_seed < 0:
            raise ConfigError("dataset.n_train, dataset.split_seed: must not be negative")
        assert self.path  # the key of the split must be set, and its file be there
        self._primary = read_tasks(self._file("primary_path"))
        related = read_tasks(self._file("related_path")) if self.options.related_path else {}
        self.tasks: dict[str, StepTask] = {**related, **self._primary}
        self._folder = self._file("annotation_path")
        if not self._folder.is_dir():
            raise DataError(f"dataset.annotation_path: {self._folder} is not a folder")
        pairs = self._annotated(self._pairs())
        keep = self.in_split([video for _, video in pairs])
        self._read([pair for pair, used in zip(pairs, keep, strict=True) if used], features_of(config))

    def _file(self, key: str) -> Path:
        path = getattr(self.options, key)
        if not path:
            raise ConfigError(f"dataset.{key}: not set; CrossTask needs it")
        return resolve_path(path)

    def _pairs(self) -> list[tuple[str, str]]:
        """Return the ``(task, video id)`` pairs of the split before anything is held out."""
        options = self.options
        listed = self._known(self._file("train_csv_path"))
        validation = self._known(self._file("val_csv_path")) if options.val_csv_path else []
        if self.split == "valid" and not self.val_holdout:
            if not validation:
                raise ConfigError("dataset.val_holdout, dataset.val_csv_path: validation needs one of them")
            return validation
        apart = {video for _, video in validation}
        pool = [pair for pair in listed if pair[1] not in apart]
        train, test = split_videos(pool, self._primary, options.n_train, options.split_seed)
        return test if self.split == "test" else train

    def _known(self, path: Path) -> list[tuple[str, str]]:
        """Read a video list; without ``related_path``, tasks that are not primary are left aside."""
        pairs = read_video_list(path)
        unknown = {task for task, _ in pairs if task not in self.tasks}
        if unknown and self.options.related_path:
            task = min(unknown)
            raise DataError(
                f"{path}: task {task!r} is neither in {self.options.primary_path} nor in "
                f"{self.options.related_path}.{nearest(task, self.tasks)}"
            )
        if unknown:
            logger.info("%s: %d tasks are left aside: they are not in dataset.primary_path", path, len(unknown))
        return [pair for pair in pairs if pair[0] in self.tasks]

    def _annotated(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Leave aside the related tasks that have no annotation at all."""
        there = {file.name for file in self._folder.iterdir()}
        annotated = {task for task, video in pairs if annotation_name(task, video) in there} | self._primary.keys()
        kept = [pair for pair in pairs if pair[0] in annotated]
        if len(kept) < len(pairs):
            message = "%s: %d videos of %d related tasks are left aside: these tasks are not annotated"
            number = len({task for task, _ in pairs} - annotated)
            logger.info(message, self._folder, len(pairs) - len(kept), number)
        return kept

    def _read(self, pairs: Iterable[tuple[str, str]], store: Any) -> None:
        """Read the annotations of the videos of the split into ``data``."""
        skips = SkipReport(self._file("train_csv_path"), self.options.max_missing, "videos")
        segments = SkipReport(self._folder, self.options.max_missing, "segments")
        number = read = 0
        for name, video in pairs:
            number += 1
            file = path_below(self._folder, annotation_name(name, video))
            if not file.is_file():
                skips.add("without an annotation", file.name)
            elif store is not None and video not in store:
                skips.add("without features", video)
            else:
                task = self.tasks[name].usable()
                item = StepVideo(video, name, task.steps, read_segments(file, task, segments))
                read += len(item.segments)
                self.data.append((item, task.steps))
        skips.close(number)
        if read or len(segments):
            segments.close(read + len(segments))


class CrossTaskTextProcessor(TextProcessor):
    """Turn the names of a task's steps into word-piece ids without special tokens, one list per step."""

    def __call__(self, text_id: Sequence[str], rng: np.random.Generator | None = None) -> list[list[int]]:
        """Return the ids of each step."""
        return super().__call__(list(text_id))


class CrossTaskAligner(Aligner):
    """Align a whole video, cut into windows, with the names of all steps of its task."""

    config_options: ClassVar[dict[str, type]] = {"dataset": CrossTaskAlignerOptions}
    whole_videos = True

    def __init__(self, config: Any) -> None:
        """Read the sizes; ConfigError if windows are longer than the model takes or leave seconds out."""
        super().__init__(config)
        self.windows = Windows.of(config)

    def __call__(
        self,
        video_id: StepVideo,
        video_feature: Any,
        text_feature: Sequence[Any],
        rng: np.random.Generator | None = None,
    ) -> dict[str, Any]:
        """Return the windows of a video of T seconds, its K steps and where they happen.

        Returns:
            ``vfeats`` float32 (W, M, D) and ``vmasks`` bool (W, M), zero-padded; ``caps`` int64 and ``cmasks`` bool
            (K, max_len - max_video_len); ``targets`` float32 0 or 1 (valid seconds of all windows, K), window
            after window, so that a second in two windows is there twice; ``video_start`` int64 (W,), the first second
            of each window; ``video_len`` T, ``video_id``, ``task``, ``steps`` (K names).

        Raises:
            DataError: if the features are empty or not ``(seconds, dim)``, or the steps are not as many as the
                task has; names the video.
        """
        if len(text_feature) != len(video_id.steps):
            raise DataError(
                f"video {video_id.video_id}: texts of {len(text_feature)} steps, but task {video_id.task} has "
                f"{len(video_id.steps)}"
            )
        try:
            cut = self.windows.cut(video_feature)
            texts = [self._build_text_seq(step) for step in text_feature]
        except DataError as error:
            raise DataError(f"video {video_id.video_id}: {error}") from error
        targets = step_targets(video_id.segments, len(video_feature), len(texts))
        caps, cmasks = zip(*texts, strict=True)
        return {
            "caps": torch.stack(caps),
            "cmasks": torch.stack(cmasks),
            "vfeats": cut.vfeats,
            "vmasks": cut.vmasks,
            "targets": torch.from_numpy(self.windows.cut_seconds(targets, 0)[cut.vmasks.numpy()]),
            "video_start": torch.from_numpy(cut.starts),
            "video_len": len(video_feature),
            "video_id": video_id.video_id,
            "task": video_id.task,
            "steps": list(video_id.steps),
        }
