"""Captioning as LAVENDER trains it (arXiv:2206.07160): masked words of a text that is seen from left to right."""

from typing import Any

import numpy as np
import torch

from mmpt.modules.masking import hide_tokens
from mmpt.processors.lavender_aligners import LAVENDERAligner, layout_tensors, words_of
from mmpt.processors.text_layouts import plain

__all__ = ["LAVENDERCaptioningAligner"]


class LAVENDERCaptioningAligner(LAVENDERAligner):
    """Align a clip with a sentence to write about it."""

    context = "captioning"

    def __call__(
        self, video_id: Any, stored: Any, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return a clip and a sentence.

        Each position of the sentence, ``[CLS]`` and ``[SEP]`` among them, is masked with ``mask_probability``, and is
        always ``[MASK]`` then. A generator of validation draws the same positions in every epoch.

        Args:
            video_id: id, or ``(id, start, end)``.
            stored: the frames, of a :class:`~mmpt.processors.frame_base.FrameVideoProcessor`.
            text_feature: ``(ids of word pieces, sentence)``; of several sentences about a clip, a list of them.
            rng: draws frames and crops in training, and masked positions.

        Returns:
            The clip as :class:`~mmpt.processors.frame_base.FrameAligner`; ``caps`` int64 and ``cmasks`` bool (X,), as
            :func:`mmpt.processors.text_layouts.plain`; ``text_label`` int64 (X,), -100 where nothing is to be
            told; ``ref``, the sentence or sentences; ``objective``; the pretext. In a test nothing is masked.

        Raises:
            UnusableItemError: as :class:`~mmpt.processors.frame_base.FrameAligner`.
            DataError: if the ids are not a flat list; names the video.
        """
        ids, reference = text_feature
        item = self.video(video_id, stored, rng)
        words = words_of(ids, item["video_id"])
        text = self.counted(item["video_id"], plain(words, self.max_text_len, self.special_ids))
        item |= {**layout_tensors(text), **self.pretext(), "ref": reference, "objective": "captioning"}
        if self.split != "test":
            rng = np.random.default_rng() if rng is None else rng
            probability = self.options.mask_probability
            hidden = hide_tokens(rng, text.caps, text.cmasks, probability, self.special_ids.mask)
            item["caps"], item["text_label"] = map(torch.from_numpy, hidden)
        return item
