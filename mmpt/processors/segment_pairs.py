"""A few frames of a clip and texts about it, for MERLOT and MERLOT Reserve as they were pre-trained, without training.

Each side is laid out as pre-training has it: a text is that of a chunk (MERLOT) or a span (Reserve). So both systems
take the tests of retrieval and of options that the systems with towers take.

Shapes: T frames, O options, X text positions, (H, W) pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.modules.reserve_tokens import SPAN_LENGTH
from mmpt.processors.base import clip_name, flat_ids
from mmpt.processors.few_frames import FewFrames
from mmpt.processors.merlot_pretraining import lay_out_chunk
from mmpt.processors.merlot_questions import MERLOTChoiceOptions
from mmpt.processors.msrvtt_qa import Choice, OptionsAligner
from mmpt.processors.oblong_frames import OblongFrames, ReserveItemOptions, merlot_frames, reserve_frames
from mmpt.processors.reserve_pretraining import lay_out_span
from mmpt.store.frame_store import StoredFrames
from mmpt.utils.errors import ConfigError
from mmpt.utils.options import read_options

__all__ = ["MERLOTPairAligner", "ReservePairAligner", "ReservePairOptions"]


@dataclass
class ReservePairOptions(ReserveItemOptions):
    """Sizes of the model input.

    Attributes:
        num_frames: frames that the model takes of a clip (T).
    """

    num_frames: int = 4


class _PairAligner(FewFrames, OptionsAligner):
    """Align the frames of a clip with a text, or with every option of a question."""

    def __init__(
        self,
        options: MERLOTChoiceOptions | ReservePairOptions,
        frames: OblongFrames,
        max_words: int,
        lay_out: Callable[[Sequence[int]], tuple[torch.Tensor, torch.Tensor]],
    ) -> None:
        super().__init__(options, frames, "are cut at their end: the model takes no more")
        self._max_words, self._lay_out = max_words, lay_out

    @property
    def max_words(self) -> int:
        """Ids that fit beside the special ones."""
        return self._max_words

    def lay_out(self, words: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask (X,) of one text."""
        return self._lay_out(flat_ids(words).tolist())

    def __call__(
        self, video_id: Any, stored: StoredFrames, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return a clip and a text, or a clip, once, and all options.

        Args:
            video_id: id, or ``(id, start, end)``.
            stored: the frames, of a :class:`~mmpt.processors.frame_base.FrameVideoProcessor`.
            text_feature: ids without special ones, or a :class:`~mmpt.processors.msrvtt_qa.Choice` of ids.
            rng: draws frames and crops, in training.

        Returns:
            ``vfeats`` uint8 (T, 3, H, W) and ``vmasks`` bool (T,), ``caps`` int64 and ``cmasks`` bool, (X,) or of a
            question (O, X) with ``answers`` int64 (1,), and ``video_id``. In the test split also ``text``, or
            ``question`` and ``options``.

        Raises:
            UnusableItemError: if there is no frame, or one is damaged; names the video.
            DataError: if the right option is none of them; names the video.
        """
        name = clip_name(video_id)
        item = self.clip(name, stored, rng)
        if isinstance(text_feature, Choice):
            over = self.too_many(text_feature)
            item |= self.question_item(name, text_feature)
        else:
            over = len(flat_ids(text_feature)) - self.max_words
            item["caps"], item["cmasks"] = self.lay_out(text_feature)
            written = getattr(text_feature, "text", None)
            item |= {"text": written} if self.split == "test" and written is not None else {}
        self.count_cut(name, over)
        return item


class MERLOTPairAligner(_PairAligner):
    """Align frames with texts in the layout of a chunk, ``START w1..wn``, for :class:`MERLOTPretraining`."""

    config_options: ClassVar[dict[str, type]] = {"dataset": MERLOTChoiceOptions}

    def __init__(self, config: Any) -> None:
        """Read the sizes; ConfigError if one cannot be."""
        options = read_options(config, MERLOTChoiceOptions)
        length = options.max_text_len
        if length < 2:
            raise ConfigError(f"dataset.max_text_len: {length} has no room for START and a word")
        super().__init__(options, merlot_frames(config), length - 1, lambda words: lay_out_chunk(words, length))


class ReservePairAligner(_PairAligner):
    """Align frames with texts in the layout of a span, at most 15 ids, for :class:`ReservePretraining`."""

    config_options: ClassVar[dict[str, type]] = {"dataset": ReservePairOptions}

    def __init__(self, config: Any) -> None:
        """Read the sizes; ConfigError if one cannot be."""
        options = read_options(config, ReservePairOptions)
        super().__init__(options, reserve_frames(config), SPAN_LENGTH, lay_out_span)
