"""TVQA as MERLOT reads it (arXiv:2106.02636, section 4.2): six frames, the subtitles as text, one text for each answer.

Shapes: T frames, O options (5), X text positions, (H, W) pixels.
"""

from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.processors.few_frames import FewFrames
from mmpt.processors.merlot_questions import MERLOTChoiceOptions, lay_out_merlot
from mmpt.processors.oblong_frames import merlot_frames
from mmpt.processors.segment_base import RecordSegments
from mmpt.processors.subword_texts import Tokenised
from mmpt.processors.tvqa import TVQAQuestion
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_options

__all__ = ["MERLOTTVQAAligner"]


class MERLOTTVQAAligner(Tokenised, FewFrames):
    """Align the frames of a clip with ``START question answer subtitles END`` for each answer.

    Subtitles that do not fit are cut at their end, the same for every answer.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": MERLOTChoiceOptions}

    def __init__(self, config: Any) -> None:
        """Read the sizes; ConfigError if one cannot be."""
        super().__init__(config)
        options = read_options(config, MERLOTChoiceOptions)
        FewFrames.__init__(self, options, merlot_frames(config))
        if options.max_text_len < 8:
            raise ConfigError(f"dataset.max_text_len: {options.max_text_len} has no room for a question (8 or more)")
        self.max_text_len = options.max_text_len

    def __call__(
        self,
        video_id: Any,
        stored: RecordSegments,
        text_feature: TVQAQuestion,
        rng: np.random.Generator | None = None,
    ) -> dict[str, Any]:
        """Return the model inputs of a question.

        Returns:
            ``vfeats`` uint8 (T, 3, H, W), ``vmasks`` bool (T,), ``caps`` int64 and ``cmasks`` bool (5, X), ``answers``
            int64 (), -1 where it is not known, and ``video_id``, the question's id.

        Raises:
            UnusableItemError: if a frame is damaged; names the question.
            DataError: if there are fewer segments than the question says; names it.
        """
        question = text_feature
        name = f"question {question.question_id}"
        if len(stored) < question.frames:
            raise DataError(f"{name}: {len(stored)} segments are stored, and frames is {question.frames}")
        seen = self.few(stored.image, question.frames, name, rng)
        asked = self.running(question.query)
        choices = [self.running(choice) for choice in question.choices]
        said = [one for window in question.subtitles[: question.frames] for one in self.running(window)]
        room = max(self.max_text_len - 2 - len(asked) - max(map(len, choices)), 0)
        self.cut.add(len(said) > room, f"{name}, {len(said) - room} ids too many")
        rows = [lay_out_merlot([*asked, *choice, *said[:room]], self.max_text_len) for choice in choices]
        return {
            **seen,
            "caps": torch.stack([caps for caps, _ in rows]),
            "cmasks": torch.stack([mask for _, mask in rows]),
            "answers": torch.tensor(question.answer),
            "video_id": question.question_id,
        }
