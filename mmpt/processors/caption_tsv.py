"""Captioning data in SwinBERT's files (:mod:`mmpt.store.swinbert_files`), as LAVENDER's authors share them."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mmpt.processors.annotations import AnnotationOptions, SkipReport, features_of
from mmpt.processors.base import MetaProcessor, SplitOptions
from mmpt.store.swinbert_files import (
    CaptionFiles,
    CaptionRow,
    read_caption_rows,
    read_caption_yaml,
    read_coco_captions,
    read_linelist,
)
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_options

__all__ = ["CaptionTSVMetaProcessor", "CaptionTSVOptions"]


@dataclass
class CaptionTSVOptions(SplitOptions, AnnotationOptions):
    """``train_path``, ``val_path``, ``test_path``: the YAML of each split.

    Items of videos that the frame store lacks are left out, and counted.
    """


class CaptionTSVMetaProcessor(MetaProcessor):
    """List ``(video_id, caption)`` for training, ``(video_id, [caption, ..])`` for validation and test.

    A training has an item per line of ``caption_linelist``, or per caption without one; the other splits an item per
    video, with all of its captions as references: those of ``caption_coco_format`` where it is given.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": CaptionTSVOptions}

    def __init__(self, config: Any) -> None:
        """Read the files of the split.

        Raises:
            ConfigError: if the YAML is not set, or names no captions that a training could read.
            DataError: if a file is wrong, the split is empty, or too much of it cannot be used.
        """
        super().__init__(config)
        options = read_options(config, CaptionTSVOptions)
        files = read_caption_yaml(self.path)
        skips = SkipReport(self.path, options.max_missing, "items")
        items = _pairs(files, skips) if self.split == "train" else _references(files, skips)
        store = features_of(config)
        kept = []
        for item in items:
            if store is None or item[0] in store:
                kept.append(item)
            else:
                skips.add("without frames" if options.frame_path else "without features", item[0])
        skips.close(len(items) + skips.counts["without a caption"])
        self.data = [item for item, used in zip(kept, self.in_split([item[0] for item in kept]), strict=True) if used]


def _pairs(files: CaptionFiles, skips: SkipReport) -> list[tuple[str, str]]:
    """Return an item per caption to train on."""
    if files.caption is None:
        raise ConfigError(f"dataset.train_path: {files.source}: names no caption file, which a training needs")
    rows = read_caption_rows(files.caption)
    if files.linelist is None:
        for video_id, captions in rows:
            if not captions:
                skips.add("without a caption", video_id)
        return [(video_id, caption) for video_id, captions in rows for caption in captions]
    return [_listed(rows, pair, files) for pair in read_linelist(files.linelist)]


def _listed(rows: list[CaptionRow], pair: tuple[int, int], files: CaptionFiles) -> tuple[str, str]:
    video, caption = pair
    if video >= len(rows) or caption >= len(rows[video][1]):
        raise DataError(f"{files.linelist}: there is no caption {caption} of video {video} in {files.caption}")
    return rows[video][0], rows[video][1][caption]


def _references(files: CaptionFiles, skips: SkipReport) -> list[tuple[str, list[str]]]:
    """Return the captions of every video that has some, the videos in the order of the caption file."""
    rows = [] if files.caption is None else read_caption_rows(files.caption)
    captions: dict[str, list[str]] = {}
    for video_id, texts in rows:
        captions.setdefault(video_id, []).extend(texts)
    if files.coco is not None:
        coco = read_coco_captions(files.coco)
        order = dict.fromkeys([*captions, *coco])
        captions = {video_id: coco.get(video_id) or captions.get(video_id, []) for video_id in order}
    for video_id, texts in captions.items():
        if not texts:
            skips.add("without a caption", video_id)
    return [(video_id, texts) for video_id, texts in captions.items() if texts]
