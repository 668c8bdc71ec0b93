"""The public files of CrossTask: task lists, video lists and annotations of steps, and the split drawn from them.

* ``tasks_primary.txt``, ``tasks_related.txt``: records of five lines (id, title, url, number of steps, the steps
  joined by commas) with a blank line between them;
* ``videos.csv``, ``videos_val.csv``: lines ``task,video,url`` without a header;
* ``annotations/<task>_<video>.csv``: lines ``step,start,end``, the first step being 1, times in seconds.
"""

import os
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmpt.processors.annotations import BAD_TIMES, SkipReport, safe_video_id, segment_times, whole_seconds
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
_MOST_DIGITS = 9


class StepTask(NamedTuple):
    """One task: its id, title and the names of its steps in order; ``fault`` says why its record cannot be used."""

    task: str
    title: str
    steps: tuple[str, ...]
    fault: str = ""

    def usable(self) -> "StepTask":
        """Return the task itself; DataError if there is a fault in its record, which names file, line and task."""
        if self.fault:
            raise DataError(self.fault)
        return self


class Segment(NamedTuple):
    """One annotated occurrence of a step (an index from 0), from ``start`` to ``end`` in seconds."""

    step: int
    start: float
    end: float


def read_tasks(path: str | os.PathLike[str]) -> dict[str, StepTask]:
    """Read the tasks of a task list, by id.

    A record that is incomplete, or whose steps are not as many as it says (the name of a step cannot hold a comma),
    gives a task with a ``fault``, and the next record is the one after the blank line: only who uses such a task
    needs to know.

    Raises:
        DataError: if the file is missing or lists no tasks; names it.
    """
    lines = _read_lines(path)
    tasks: dict[str, StepTask] = {}
    position = 0
    while position < len(lines):
        if not lines[position]:
            position += 1
            continue
        task, position = _read_task(path, lines, position)
        if task.task in tasks:
            task = task._replace(steps=(), fault=f"{path}: task {task.task!r} is listed twice")
        tasks[task.task] = task
    if not tasks:
        raise DataError(f"{path}: lists no tasks")
    return tasks


def _read_task(path: str | os.PathLike[str], lines: Sequence[str], position: int) -> tuple[StepTask, int]:
    """Return the task whose record begins at a line, and the line after it."""
    record, after = lines[position : position + _RECORD_LINES], position + _RECORD_LINES
    names: tuple[str, ...] = ()
    if len(record) < _RECORD_LINES:
        fault = f"its record has {len(record)} lines; expected id, title, url, number, steps"
    elif not record[3].isdecimal() or len(record[3]) > _MOST_DIGITS:
        fault = f"{record[3]!r} is not a number of steps"
    elif any(lines[after : after + 1]):
        fault = f"a blank line was expected after its five lines, not {lines[after]!r}"
    else:
        names = tuple(name.strip() for name in record[4].split(","))
        wrong = len(names) != int(record[3]) or not all(names)
        fault = f"should have {record[3]} steps, but lists {len(names)}: {record[4]!r}" if wrong else ""
    if not names:
        after = next((number for number in range(position, len(lines)) if not lines[number]), len(lines))
    title = record[1] if len(record) > 1 else ""
    where = f"{path}: line {position + 1}: task {record[0]!r}"
    return StepTask(record[0], title, () if fault else names, fault and f"{where}: {fault}"), after


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


def read_segments(path: str | os.PathLike[str], task: StepTask, skips: SkipReport) -> tuple[Segment, ...]:
    """Read the annotated steps of a video; lines that are no ``step,start,end`` of the task are left out and counted.

    Raises:
        DataError: if the file cannot be read; names it.
    """
    segments = []
    for number, line in enumerate(_read_lines(path), 1):
        if not line:
            continue
        step, *pair = line.split(",")
        times = segment_times(pair)
        index = _step_index(step, len(task.steps))
        if len(pair) != 2 or index is None or times is None:
            reason = "that are not 'step,start,end'"
            if len(pair) == 2 and index is None:
                reason = "of a step that the task does not have"
            elif len(pair) == 2:
                reason = BAD_TIMES
            skips.add(reason, f"{Path(path).name}, line {number}: {line!r}, steps 1 to {len(task.steps)}")
        else:
            segments.append(Segment(index, *times))
    return tuple(segments)


def _step_index(text: str, steps: int) -> int | None:
    """Return the index of a step that is numbered from 1; None if there is no such step."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) - 1 if number in range(1, steps + 1) else None


def step_targets(segments: Sequence[Segment], seconds: int, steps: int) -> np.ndarray:
    """Return 1 where a step is annotated, else 0: float32 ``(seconds, steps)``.

    A segment covers the seconds from floor(start) up to ceil(end), as far as the video goes.
    """
    targets = np.zeros((seconds, steps), dtype=np.float32)
    for step, start, end in segments:
        first, stop = whole_seconds(start, end)
        targets[first:stop, step] = 1
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
