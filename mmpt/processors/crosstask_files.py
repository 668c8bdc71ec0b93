"""The public files of CrossTask: task lists, video lists and annotations of steps, and the split drawn from them.

* ``tasks_primary.txt``, ``tasks_related.txt``: records of five lines (id, title, url, number of steps, the steps
  joined by commas) with a blank line between them;
* ``videos.csv``, ``videos_val.csv``: lines ``task,video,url`` without a header;
* ``annotations/<task>_<video>.csv``: lines ``step,start,end``, the first step being 1, times in seconds.
"""

import math
import os
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmpt.processors.annotations import safe_video_id
from mmpt.utils.errors import DataError

__all__ = [
    "Segment",
    "StepTask",
    "annotation_name",
    "read_segments",
    "read_tasks",
    "read_video_list",
    "split_videos",
    "step_targets",
]

_RECORD_LINES = 5


class StepTask(NamedTuple):
    """One task: its id, title and the names of its steps in order."""

    task: str
    title: str
    steps: tuple[str, ...]


class Segment(NamedTuple):
    """One annotated occurrence of a step (an index from 0), from ``start`` to ``end`` in seconds."""

    step: int
    start: float
    end: float


def read_tasks(path: str | os.PathLike[str]) -> dict[str, StepTask]:
    """Read the tasks of a task list, by id.

    Raises:
        DataError: if the file is missing or empty, a record is incomplete, an id occurs twice or the steps are not
            as many as the record says; names file, line and task.
    """
    lines = _read_lines(path)
    tasks: dict[str, StepTask] = {}
    position = 0
    while position < len(lines):
        if not lines[position]:
            position += 1
            continue
        record = lines[position : position + _RECORD_LINES]
        where = f"{path}: line {position + 1}: task {record[0]!r}"
        if len(record) < _RECORD_LINES:
            raise DataError(f"{where}: its record has {len(record)} lines; expected id, title, url, number, steps")
        if record[0] in tasks:
            raise DataError(f"{where} is listed twice")
        tasks[record[0]] = StepTask(record[0], record[1], _steps(record[3], record[4], where))
        position += _RECORD_LINES
        if position < len(lines) and lines[position]:
            raise DataError(f"{path}: line {position + 1}: a blank line was expected after the five lines of {where}")
    if not tasks:
        raise DataError(f"{path}: lists no tasks")
    return tasks


def _steps(number: str, names: str, where: str) -> tuple[str, ...]:
    steps = tuple(name.strip() for name in names.split(","))
    if not number.isdecimal():
        raise DataError(f"{where}: {number!r} is not a number of steps")
    if len(steps) != int(number) or not all(steps):
        raise DataError(f"{where}: should have {number} steps, but lists {len(steps)}: {names!r}")
    return steps


def read_video_list(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Read the ``(task, video id)`` pairs of a list, each once; the url may hold commas and may be absent.

    Raises:
        DataError: if the file is missing or empty, or a line is anything else; names file and line.
    """
    pairs: dict[tuple[str, str], None] = {}
    for number, line in enumerate(_read_lines(path), 1):
        if not line:
            continue
        task, _, rest = (part.strip() for part in line.partition(","))
        video = rest.partition(",")[0].strip()
        if not task or not video:
            raise DataError(f"{path}: line {number}: {line!r} is not 'task,video,url'")
        safe_video_id(video, path)
        safe_video_id(annotation_name(task, video), path)
        pairs[task, video] = None
    if not pairs:
        raise DataError(f"{path}: lists no videos")
    return list(pairs)


def annotation_name(task: str, video: str) -> str:
    """Return the name of the annotation file of a video."""
    return f"{task}_{video}.csv"


def read_segments(path: str | os.PathLike[str], task: StepTask) -> tuple[Segment, ...]:
    """Read the annotated steps of a video.

    Raises:
        DataError: if the file is missing, a line is not ``step,start,end``, a step is none of the task's or a time
            is wrong; names file, line and task.
    """
    segments = []
    for number, line in enumerate(_read_lines(path), 1):
        if not line:
            continue
        where = f"{path}: line {number}"
        try:
            step, start, end = (float(value) for value in line.split(","))
        except ValueError as error:
            raise DataError(f"{where}: {line!r} is not 'step,start,end'") from error
        if step not in range(1, len(task.steps) + 1):
            raise DataError(f"{where}: task {task.task} has steps 1 to {len(task.steps)}, not {line.split(',')[0]}")
        if not 0 <= start <= end < math.inf:
            raise DataError(f"{where}: task {task.task}: a step cannot last from {start} to {end} seconds")
        segments.append(Segment(int(step) - 1, start, end))
    return tuple(segments)


def step_targets(segments: Sequence[Segment], seconds: int, steps: int) -> np.ndarray:
    """Return 1 where a step is annotated, else 0: float32 ``(seconds, steps)``.

    A segment covers the seconds from floor(start) up to ceil(end), as far as the video goes.
    """
    targets = np.zeros((seconds, steps), dtype=np.float32)
    for step, start, end in segments:
        targets[math.floor(start) : math.ceil(end), step] = 1
    return targets


def split_videos(
    pairs: Sequence[tuple[str, str]], primary: Collection[str], n_train: int, seed: int
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Split ``(task, video id)`` pairs into training and test.

    Of each primary task with more than ``n_train`` videos, ``n_train`` are drawn for training and the others
    tested on. All other videos are for training, unless they are tested on under another task. The draw depends on
    ``seed``, the task and the names of its videos alone.
    """
    videos: dict[str, list[str]] = {}
    for task, video in pairs:
        videos.setdefault(task, []).append(video)
    test: set[tuple[str, str]] = set()
    for task, names in videos.items():
        if task in primary and len(names) > n_train:
            rng = np.random.default_rng([seed, zlib.crc32(task.encode())])
            order = rng.permutation(len(names))
            names = sorted(names)
            test.update((task, names[index]) for index in order[n_train:])
    tested = {video for _, video in test}
    return [pair for pair in pairs if pair[1] not in tested], [pair for pair in pairs if pair in test]


def _read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Return the stripped lines of a text file, with line ends of any system."""
    try:
        return [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").split("\n")]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not a text file in UTF-8 ({error})") from error
