"""YouCook2 for captioning: every annotated clip of the videos of a list."""

from collections.abc import Mapping
from typing import Any, ClassVar

from mmpt.processors.annotations import SkipReport, features_of, safe_video_id
from mmpt.processors.base import MetaProcessor, read_id_list
from mmpt.processors.youcook import ClipReader, UnusableClipError, YoucookOptions, read_database
from mmpt.utils.errors import ConfigError
from mmpt.utils.options import read_options

__all__ = ["YoucookNLGMetaProcessor"]


class YoucookNLGMetaProcessor(MetaProcessor):
    """List ``((video_id, start, end), sentence)``: a clip in whole seconds, rounded outwards, and its sentence.

    The list is a text file with ``<recipe>/<video id>`` per line (train_list.txt, val_list.txt); clips and sentences
    come from ``trainval_annotation``. Clips whose video has no features, or that lie outside of them, are left out
    and counted.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": YoucookOptions}

    def __init__(self, config: Any) -> None:
        """Read list and annotations.

        Raises:
            ConfigError: if ``trainval_annotation`` is not set.
            DataError: if a file is wrong, the split is empty or too much of it cannot be used.
        """
        super().__init__(config)
        self.options = read_options(config, YoucookOptions)
        if not self.options.trainval_annotation:
            raise ConfigError(
                "dataset.trainval_annotation: not set; the clips are those of youcookii_annotations_trainval.json"
            )
        lines = read_id_list(self.path, self.path_key)
        video_ids = [safe_video_id(line.rpartition("/")[2], self.path) for line in lines]
        keep = self.in_split(video_ids)
        database = read_database(self.options.trainval_annotation)
        reader = ClipReader(self.options.trainval_annotation, features_of(config))
        skips = SkipReport(self.path, self.options.max_missing, "clips")
        for video_id, used in zip(video_ids, keep, strict=True):
            if used:
                self._add_clips(video_id, database.get(video_id), reader, skips)
        skips.close(len(self.data) + len(skips))

    def _add_clips(self, video_id: str, video: Any, reader: ClipReader, skips: SkipReport) -> None:
        """Add the clips of one video, or count what is left out."""
        clips = video.get("annotations") if isinstance(video, Mapping) else None
        if not isinstance(clips, list) or not clips:
            skips.add("without an annotation", video_id)
            return
        for number, clip in enumerate(clips):
            name = f"{video_id}_{number}"
            try:
                if not isinstance(clip, Mapping):
                    raise UnusableClipError("without an annotation")
                self.data.append(reader.item(video_id, clip, clip.get("sentence"), name))
            except UnusableClipError as reason:
                skips.add(str(reason), name)
