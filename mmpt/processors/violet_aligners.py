"""Questions about a few frames of a clip, as VIOLET reads them (arXiv 2111.12681, section 4).

Retrieval needs no aligner of its own: :class:`~mmpt.processors.frame_base.FrameAligner`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mmpt.modules.masking import IGNORED
from mmpt.processors.frame_base import FrameAligner
from mmpt.processors.msrvtt_qa import Choice, OptionsAligner
from mmpt.processors.open_questions import OpenQuestion
from mmpt.store.frame_store import StoredFrames
from mmpt.utils.errors import DataError

__all__ = ["VIOLETMultipleChoiceAligner", "VIOLETOpenEndedAligner"]


class VIOLETMultipleChoiceAligner(OptionsAligner, FrameAligner):
    """Align a clip with every option of a question: ``[CLS] question option [SEP]``, one segment for each."""

    @property
    def max_words(self) -> int:
        """Word pieces that fit beside ``[CLS]`` and ``[SEP]``."""
        return self.max_text_len - 2

    def lay_out(self, words: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask (X,) of one text."""
        return self.text(words)

    def __call__(
        self, video_id: Any, stored: StoredFrames, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return the clip, once, with all options.

        A question that does not fit beside the longest option is cut at its end, the same for every option (published:
        the option is cut, down to texts that are all alike).

        Args:
            video_id: id, or ``(id, start, end)``.
            stored: the frames, of a :class:`~mmpt.processors.frame_base.FrameVideoProcessor`.
            text_feature: :class:`~mmpt.processors.msrvtt_qa.Choice` of ids.
            rng: draws frames and crops, in training.

        Returns:
            The clip as :class:`FrameAligner`, and ``caps`` int64 and ``cmasks`` bool (O, X), ``answers`` int64 (1,).
            Where the options of the corpus differ in number, ``option_mask`` bool (O,) is false on the rows that only
            fill up. In the test split also ``question`` and ``options``, the texts.

        Raises:
            UnusableItemError: as :class:`FrameAligner`.
            DataError: if the right option is none of them, or the ids are not flat lists; names the video.
        """
        texts = self.question_item(video_id, text_feature)
        item = {**self.video(video_id, stored, rng), **texts}
        self.count_cut(item["video_id"], self.too_many(Choice(*text_feature)))
        return item


class VIOLETOpenEndedAligner(FrameAligner):
    """Align a clip with a question whose answer is one of a vocabulary."""

    def __call__(
        self, video_id: Any, stored: StoredFrames, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return a clip and a question.

        Args:
            video_id: id, or ``(id, start, end)``.
            stored: the frames, of a :class:`~mmpt.processors.frame_base.FrameVideoProcessor`.
            text_feature: :class:`~mmpt.processors.open_questions.OpenQuestion` of ids.
            rng: draws frames and crops, in training.

        Returns:
            As :class:`FrameAligner`, ``caps`` being the question, and ``answers`` int64 (), the class of the answer;
            -100 where the vocabulary lacks it: nothing to be learned from, and wrong in a test. In the test split also
            ``question`` and ``answer_text``, the texts.

        Raises:
            UnusableItemError: as :class:`FrameAligner`.
            DataError: if it is no open-ended question, or the ids are not a flat list; names the video.
        """
        if not isinstance(text_feature, OpenQuestion):
            raise DataError(f"video {video_id}: {type(text_feature).__name__} is no open-ended question")
        item = super().__call__(video_id, stored, text_feature.question, rng)
        item["answers"] = torch.tensor(text_feature.label if text_feature.label >= 0 else IGNORED)
        if self.split == "test" and text_feature.texts:
            item["question"], item["answer_text"] = text_feature.texts
        return item
