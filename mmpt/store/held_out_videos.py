"""Keep the videos that one task of a data set is tested on out of the training of its other tasks.

A multi-task training reads the train splits of several tasks over the same videos, which each task splits in its own
way: without this, a model would be tested on videos that another task has trained it on.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from mmpt.store.swinbert_files import (
    CaptionFiles,
    read_caption_rows,
    read_caption_yaml,
    read_coco_captions,
    read_linelist,
    video_id_of_key,
)
from mmpt.utils.config import read_yaml
from mmpt.utils.errors import DataError
from mmpt.utils.files import atomic_open, read_json, write_json

__all__ = ["Kept", "filter_data_set"]

logger = logging.getLogger(__name__)

_TESTED = ("val", "test")


@dataclass(frozen=True)
class Kept:
    """What became of one train split: the file that was written, and its items and videos before and after."""

    target: Path
    items: int
    kept_items: int
    videos: int
    kept_videos: int

    def __str__(self) -> str:
        return (
            f"{self.target}: {self.kept_items} of {self.items} training items kept, "
            f"{self.kept_videos} of {self.videos} videos"
        )


def filter_data_set(root: Path, dataset: str, output: Path, caption_yaml: str | None = None) -> list[Kept]:
    """Write every train split of a data set without the videos of any task's validation and test.

    Args:
        root: folder of the files ``txt_<dataset>-<task>.json``: ``{"train": [{"video", ..}], "val", "test", ..}``.
        dataset: ``msrvtt``, ``msvd``, ``lsmdc``, ``tgif`` or any other.
        output: folder that gets the same names; other splits and keys are copied as they are.
        caption_yaml: SwinBERT's YAML files below ``root``, with ``{split}`` for train, val and test. Of captions, a
            train YAML with a list of the items that are left is written, which names the other files where they are.

    Raises:
        DataError: if there is no such task, a file is wrong, nothing is left of a train split, or the output folder
            is that of the input.
    """
    if output.resolve() == root.resolve():
        raise DataError(f"{output}: the output folder is that of the input, whose files would be replaced")
    paths = sorted(root.glob(f"txt_{dataset}-*.json"))
    captions = _caption_files(root, caption_yaml)
    if not paths and not captions:
        raise DataError(f"{root}: there is no file txt_{dataset}-<task>.json; name another folder or data set")
    tasks = {path: _read_task(path) for path in paths}
    held_out = {video for path, task in tasks.items() for video in _videos_of(task, path, _TESTED)}
    for split in set(captions) & set(_TESTED):
        held_out |= _captioned_videos(captions[split])
    logger.info("%s: %d videos are in a validation or test", dataset, len(held_out))
    # Everything is computed before anything is written: a wrong file leaves no half of an output.
    filtered = {path: _filtered_task(task, path, output / path.name, held_out) for path, task in tasks.items()}
    train = captions.get("train")
    listed = _filtered_captions(train, held_out) if train else None
    for path, (content, kept) in filtered.items():
        write_json(output / path.name, content, indent=None)
        logger.info("%s: written, from %s", kept.target, path)
    report = [kept for _, kept in filtered.values()]
    if train is not None and listed is not None:
        target = output / train.source.relative_to(root)
        report.append(_write_captions(train, target, *listed))
    return report


def _caption_files(root: Path, pattern: str | None) -> dict[str, CaptionFiles]:
    """Return the caption files of the splits that there are."""
    if pattern is None:
        return {}
    if "{split}" not in pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise DataError(f"{pattern}: expected a path below {root} with {{split}} in it")
    paths = {split: root / pattern.replace("{split}", split) for split in ("train", *_TESTED)}
    found = {split: read_caption_yaml(path) for split, path in paths.items() if path.is_file()}
    if not found:
        raise DataError(f"{root}: there is no {pattern} of any split")
    if absent := [str(paths[split]) for split in _TESTED if split not in found]:
        logger.warning("no such file: %s: videos whose captions are tested there are not held out", ", ".join(absent))
    return found


def _read_task(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected the splits of a task, each a list of items")
    for split in ("train", *_TESTED):
        if not isinstance(content.get(split) or [], list):
            raise DataError(f"{path}: {split}: a {type(content[split]).__name__}, expected a list of items")
    return content


def _videos_of(task: Mapping[str, Any], path: Path, splits: Iterable[str]) -> set[str]:
    return {_video_of(item, path) for split in splits for item in task.get(split) or ()}


def _video_of(item: Any, path: Path) -> str:
    if not isinstance(item, dict) or "video" not in item:
        raise DataError(f"{path}: an item without a key 'video': {str(item)[:80]}")
    return video_id_of_key(item["video"], path)


def _captioned_videos(files: CaptionFiles) -> set[str]:
    videos = set(read_coco_captions(files.coco)) if files.coco else set()
    return videos | {video for video, _ in read_caption_rows(files.caption)} if files.caption else videos


def _filtered_task(task: dict[str, Any], path: Path, target: Path, held_out: set[str]) -> tuple[dict[str, Any], Kept]:
    train = task.get("train") or []
    videos = [_video_of(item, path) for item in train]
    kept = [item for item, video in zip(train, videos, strict=True) if video not in held_out]
    if train and not kept:
        raise DataError(f"{path}: every training item is about a video of a validation or test")
    content = {**task, "train": kept} if "train" in task else task
    left = set(videos) - held_out
    return content, Kept(target, len(train), len(kept), len(set(videos)), len(left))


def _filtered_captions(files: CaptionFiles, held_out: set[str]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the items, before and after, of a training on captions: each a line of a video, a caption's number."""
    if files.caption is None:
        raise DataError(f"{files.source}: names no caption file, which a training needs")
    rows = read_caption_rows(files.caption)
    if files.linelist is not None:
        pairs = read_linelist(files.linelist)
    else:
        pairs = [(line, number) for line, (_, captions) in enumerate(rows) for number in range(len(captions))]
    if any(line >= len(rows) for line, _ in pairs):
        raise DataError(f"{files.linelist}: names a video beyond the {len(rows)} of {files.caption}")
    kept = [pair for pair in pairs if rows[pair[0]][0] not in held_out]
    if not kept:
        raise DataError(f"{files.source}: every caption is about a video of a validation or test")
    return pairs, kept


def _write_captions(
    files: CaptionFiles, target: Path, pairs: list[tuple[int, int]], kept: list[tuple[int, int]]
) -> Kept:
    """Write the list of items, then the YAML that names it and, where they are, the files of the input."""
    linelist = target.with_suffix(".linelist.tsv")
    with atomic_open(linelist) as file:
        file.writelines(f"{line}\t{number}\n" for line, number in kept)
    content = {str(key): value for key, value in (OmegaConf.to_container(read_yaml(files.source)) or {}).items()}  # type: ignore[union-attr]
    source = files.source.parent.resolve()
    named = {key: value for key, value in content.items() if isinstance(value, str) and (source / value).is_file()}
    moved = {key: os.path.relpath(source / value, target.parent.resolve()) for key, value in named.items()}
    with atomic_open(target) as file:
        yaml.safe_dump({**content, **moved, "caption_linelist": linelist.name}, file)
    counts = (len({line for line, _ in some}) for some in (pairs, kept))
    return Kept(target, len(pairs), len(kept), *counts)
