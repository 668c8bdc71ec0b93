"""DiDeMo, in two protocols that are not to be mixed up.

* Moment ranking: for each description, rank the 21 moments inside its video.
* Paragraph to video: find the video that all of its descriptions, joined, belong to.
"""

import logging
from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmpt.processors.annotations import AnnotationOptions, SkipReport, features_of, read_records, safe_video_id
from mmpt.processors.base import MetaProcessor, SplitOptions
from mmpt.utils.options import read_options

__all__ = ["DiDeMoMetaProcessor", "DiDeMoOptions", "DiDeMoParagraphMetaProcessor"]

logger = logging.getLogger(__name__)


@dataclass
class DiDeMoOptions(SplitOptions, AnnotationOptions):
    """Lists of DiDeMo: {train,val,test}_data.json."""


class DiDeMoMetaProcessor(MetaProcessor):
    """List ``(video_id, description)`` for moment ranking; ``data[i]`` is the annotation itself.

    The file is a JSON list of ``{"video", "description", "times"}``, times being pairs of 5-second chunks,
    one per annotator. Videos are named with their extension there: where the features are named without,
    the annotation's ``video`` is shortened to match.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": DiDeMoOptions}
    _keys: tuple[str, ...] = ("video", "description", "times")

    def __init__(self, config: Any) -> None:
        """Read the list.

        Raises:
            DataError: if the file is wrong, the split is empty or too much of it has no features.
        """
        super().__init__(config)
        options = read_options(config, DiDeMoOptions)
        records = read_records(self.path, self._keys)
        for record in records:
            safe_video_id(record["video"], self.path)
        # Held out by the name in the file: the split must not depend on how feature files are called.
        keep = self.in_split([record["video"] for record in records])
        records = [record for record, used in zip(records, keep, strict=True) if used]
        store = features_of(config)
        skips = SkipReport(self.path, options.max_missing)
        for record in records:
            name = _feature_name(record["video"], store)
            if not isinstance(record["description"], str) or not record["description"].strip():
                skips.add("without a description", record["video"])
            elif "times" in self._keys and isinstance(record["times"], Sized) and not len(record["times"]):
                skips.add("without times", record["video"])
            elif name is None:
                skips.add("without features", record["video"])
            else:
                self.data.append({**record, "video": name, "description": record["description"].strip()})
        skips.close(len(records))

    def __getitem__(self, index: int) -> tuple[str, str]:
        record = self.data[index]
        return record["video"], record["description"]


class DiDeMoParagraphMetaProcessor(DiDeMoMetaProcessor):
    """List ``(video_id, paragraph)`` for paragraph-to-video retrieval: one item per video.

    A video's descriptions are joined by a space in the order of the file. ``data[i]`` is
    ``{"video", "description", "sentences"}``, the last being the descriptions before joining.
    """

    _keys = ("video", "description")

    def __init__(self, config: Any) -> None:
        """Read the list and group it by video; raises as :class:`DiDeMoMetaProcessor`."""
        super().__init__(config)
        grouped: dict[str, list[str]] = {}
        for record in self.data:
            grouped.setdefault(record["video"], []).append(record["description"])
        self.data = [
            {"video": video, "description": " ".join(sentences), "sentences": sentences}
            for video, sentences in grouped.items()
        ]


def _feature_name(video: str, store: Any) -> str | None:
    """Return the name under which the features of a video are stored, None if they are not."""
    stem = Path(video).stem
    if store is None:
        return video
    return next((name for name in (video, stem) if name in store), None)
