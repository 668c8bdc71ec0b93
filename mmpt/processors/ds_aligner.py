"""The aligner of downstream tasks: one video clip with one sentence."""

from typing import Any

import numpy as np

from mmpt.processors.base import Aligner, clip_name
from mmpt.utils.errors import DataError

__all__ = ["DSAligner"]


class DSAligner(Aligner):
    """Align the first ``max_video_len`` seconds of a clip with a whole sentence (cut to the words that fit)."""

    def __call__(
        self, video_id: Any, video_feature: Any, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return ``caps``, ``cmasks`` ``(max_len - max_video_len,)``, ``vfeats`` ``(max_video_len, dim)``, ``vmasks``.

        ``video_id`` of the result is a string; ``(id, start, end)`` becomes ``id_start_end``, since two clips
        of one video are two candidates in retrieval.

        Raises:
            DataError: if the features are empty or not ``(seconds, dim)``, or the ids not a flat list; names the video.
        """
        name = clip_name(video_id)
        if not len(video_feature):
            raise DataError(f"video {name}: its features hold no second")
        try:
            vfeats, vmasks = self._build_video_seq(video_feature)
            caps, cmasks = self._build_text_seq(text_feature)
        except DataError as error:
            raise DataError(f"video {name}: {error}") from error
        return {"caps": caps, "cmasks": cmasks, "vfeats": vfeats, "vmasks": vmasks, "video_id": name}
