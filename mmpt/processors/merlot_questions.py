"""Questions about a few frames of a clip, as MERLOT reads them (arXiv:2106.02636): with N answers, or open-ended.

Meta and text files are those of VIOLET and LAVENDER (:class:`~mmpt.processors.clip_texts.ClipTextMetaProcessor`).

Shapes: T frames, O options, X text positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.modules.masking import IGNORED
from mmpt.modules.merlot_tokens import END, PADDING, START
from mmpt.processors.base import clip_name, flat_ids
from mmpt.processors.few_frames import FewFrames
from mmpt.processors.msrvtt_qa import Choice, OptionsAligner
from mmpt.processors.oblong_frames import MERLOTItemOptions, merlot_frames
from mmpt.processors.open_questions import OpenQuestion
from mmpt.store.frame_store import StoredFrames
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_options

__all__ = ["MERLOTChoiceAligner", "MERLOTChoiceOptions", "MERLOTOpenEndedAligner", "lay_out_merlot"]


@dataclass
class MERLOTChoiceOptions(MERLOTItemOptions):
    """Sizes of the model input.

    Attributes:
        num_frames: frames that the model takes of a video (T).
    """

    num_frames: int = 4


def lay_out_merlot(words: Sequence[int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay out ids as ``START w1..wn END`` padded with 0, cutting off those that do not fit.

    Returns:
        Ids int64 (length,), and bool (length,), true for all but the padding.
    """
    kept = np.asarray(words, np.int64)[: length - 2]
    caps = np.full(length, PADDING, np.int64)
    caps[0], caps[1 + len(kept)] = START, END
    caps[1 : 1 + len(kept)] = kept
    return torch.from_numpy(caps), torch.arange(length) < len(kept) + 2


class _ClipFrames(FewFrames):
    """What the aligners of questions about a clip share: a few of its frames, and the length of texts."""

    def __init__(self, config: Any) -> None:
        """Read the sizes; ConfigError if one cannot be."""
        options = read_options(config, MERLOTChoiceOptions)
        super().__init__(options, merlot_frames(config))
        if options.max_text_len < 3:
            raise ConfigError(f"dataset.max_text_len: {options.max_text_len} has no room for START, a word and END")
        self.max_text_len = options.max_text_len


class MERLOTChoiceAligner(_ClipFrames, OptionsAligner):
    """Align a clip with every option of a question: ``START question option END``, one text for each."""

    config_options: ClassVar[dict[str, type]] = {"dataset": MERLOTChoiceOptions}

    @property
    def max_words(self) -> int:
        """Ids that fit beside START and END."""
        return self.max_text_len - 2

    def lay_out(self, words: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask (X,) of one text."""
        return lay_out_merlot(flat_ids(words).tolist(), self.max_text_len)

    def __call__(
        self, video_id: Any, stored: StoredFrames, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return the clip, once, with all options.

        A question that does not fit beside the longest option is cut at its end, the same for every option.

        Args:
            video_id: id, or ``(id, start, end)``.
            stored: the frames, of a :class:`~mmpt.processors.frame_base.FrameVideoProcessor`.
            text_feature: :class:`~mmpt.processors.msrvtt_qa.Choice` of ids.
            rng: draws frames and crops, in training.

        Returns:
            ``vfeats`` uint8 (T, 3, H, W) and ``vmasks`` bool (T,), ``caps`` int64 and ``cmasks`` bool (O, X),
            ``answers`` int64 (1,), ``video_id``; ``option_mask`` bool (O,) where the options of the corpus differ in
            number. In the test split also ``question`` and ``options``, the texts.

        Raises:
            UnusableItemError: if there is no frame, or one is damaged; names the video.
            DataError: if the right option is none of them; names the video.
        """
        name = clip_name(video_id)
        if not isinstance(text_feature, Choice):
            raise DataError(f"video {name}: {type(text_feature).__name__} is no question with options")
        texts = self.question_item(name, text_feature)
        self.count_cut(name, self.too_many(text_feature))
        return {**self.clip(name, stored, rng), **texts}


class MERLOTOpenEndedAligner(_ClipFrames):
    """Align a clip with a question whose answer is one of a vocabulary: ``START question END``."""

    config_options: ClassVar[dict[str, type]] = {"dataset": MERLOTChoiceOptions}

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
            As :class:`MERLOTChoiceAligner`, with ``caps`` int64 and ``cmasks`` bool (X,), and ``answers`` int64 (), the
            class of the answer, -100 where the vocabulary lacks it. In the test split also ``question`` and
            ``answer_text``, the texts.

        Raises:
            UnusableItemError: if there is no frame, or one is damaged; names the video.
            DataError: if it is no open-ended question; names the video.
        """
        name = clip_name(video_id)
        if not isinstance(text_feature, OpenQuestion):
            raise DataError(f"video {name}: {type(text_feature).__name__} is no open-ended question")
        ids = flat_ids(text_feature.question).tolist()
        caps, cmasks = lay_out_merlot(ids, self.max_text_len)
        self.count_cut(name, len(ids) + 2 - self.max_text_len)
        label = torch.tensor(text_feature.label if text_feature.label >= 0 else IGNORED)
        item = {**self.clip(name, stored, rng), "caps": caps, "cmasks": cmasks, "answers": label}
        if self.split == "test" and text_feature.texts:
            item["question"], item["answer_text"] = text_feature.texts
        return item
