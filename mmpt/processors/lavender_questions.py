"""Questions about a clip as LAVENDER reads them (arXiv:2206.07160, section 3): one text with a ``[MASK]`` to fill in.

Items say by ``answer_position`` where in ``caps`` the answer stands; their objective is the default of
:meth:`mmpt.models.lavender.LAVENDER.forward`, to tell the words of ``text_label``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpt.modules.masking import IGNORED
from mmpt.processors import lavender_layouts as layouts
from mmpt.processors.cut_texts import CutTexts
from mmpt.processors.lavender_aligners import LAVENDERAligner, layout_tensors, words_of
from mmpt.processors.msrvtt_qa import Choice
from mmpt.processors.open_questions import OpenQuestion
from mmpt.processors.text_layouts import Layout
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.tokenizers import load_tokenizer

__all__ = ["LAVENDERBlankAligner", "LAVENDERChoiceAligner", "LAVENDERQuestionAligner"]


class LAVENDERChoiceAligner(LAVENDERAligner):
    """Align a clip with a question and all of its options in one text; the answer is the number of an option.

    Args:
        config: section dataset.
        masked: whether there is a ``[MASK]`` for the number; the task-specific baseline reads it off ``[CLS]``.
    """

    context = "choice"

    def __init__(self, config: Any, masked: bool = True) -> None:
        super().__init__(config)
        self.mask_pos = self.options.mask_pos if masked else None
        self._heads: list[list[int]] = []

    def __call__(
        self, video_id: Any, stored: Any, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return a clip and a question.

        Args:
            video_id: id, or ``(id, start, end)``.
            stored: the frames, of a :class:`~mmpt.processors.frame_base.FrameVideoProcessor`.
            text_feature: :class:`~mmpt.processors.msrvtt_qa.Choice` of ids.
            rng: draws frames and crops, in training.

        Returns:
            The clip as :class:`FrameAligner`, ``caps`` int64 and ``cmasks`` bool (X,) as
            :func:`mmpt.processors.lavender_layouts.ask_choice`, ``answers`` int64 (1,), ``option_mask`` bool (O,),
            true for the options that there are, the pretext and, where the text has a ``[MASK]``, ``answer_position``
            int64 () and ``text_label`` int64 (X,), the number of the right option there. Options that do not fit are
            cut off, and counted. In the test split also ``question`` and ``options``, the texts.

        Raises:
            UnusableItemError: as :class:`FrameAligner`.
            DataError: if the right option is none of them; names the video.
            ConfigError: if the vocabulary lacks its number.
        """
        choice = Choice(*text_feature)
        number, slots = len(choice.options), max(choice.slots, len(choice.options))
        if not 0 <= choice.answer < number:
            raise DataError(f"video {video_id}: {choice.answer} is no index of its {number} options")
        item = self.video(video_id, stored, rng)
        words = layouts.join_options(choice.question or [], choice.options, self._option_heads(slots), self.special_ids)
        text = layouts.ask_choice(words, self.max_text_len, self.special_ids, self.mask_pos)
        item |= {**layout_tensors(self.counted(item["video_id"], text)), **self.pretext(slots)}
        item |= {"answers": torch.tensor([choice.answer]), "option_mask": torch.arange(slots) < number}
        if self.mask_pos is not None:
            item |= _answer(text, self._number(choice.answer))
        if self.split == "test" and choice.texts:
            item |= {"question": choice.texts[0], "options": list(choice.texts[1:])}
        return item

    def _option_heads(self, number: int) -> list[list[int]]:
        """Return the ids of ``option 0 :`` and its followers."""
        while len(self._heads) < number:
            self._heads.append(self.pieces(f"option {len(self._heads)}:"))
        return self._heads

    def _number(self, number: int) -> int:
        ids = self.pieces(str(number))
        if len(ids) != 1 or ids[0] == load_tokenizer(self.bert_name, self.options.use_fast).unk_token_id:
            raise ConfigError(f"dataset.bert_name: the number of option {number} is no word piece of {self.bert_name}")
        return ids[0]


class LAVENDERQuestionAligner(LAVENDERAligner):
    """Align a clip with an open-ended question, whose answer is a word piece."""

    context = "question"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.untold = CutTexts("have an answer that is no single word piece, or no place for it: they count as wrong")

    def __call__(
        self, video_id: Any, stored: Any, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return a clip and a question.

        Args:
            video_id: id, or ``(id, start, end)``.
            stored: the frames, of a :class:`~mmpt.processors.frame_base.FrameVideoProcessor`.
            text_feature: :class:`~mmpt.processors.open_questions.OpenQuestion` of ids.
            rng: draws frames and crops, in training.

        Returns:
            The clip as :class:`FrameAligner`, ``caps`` int64 and ``cmasks`` bool (X,) as
            :func:`mmpt.processors.lavender_layouts.ask_openly`, ``answers`` int64 (), the id of the
            word piece, ``answer_position`` int64 (), -1 where the blank is cut off, ``text_label`` int64 (X,), the
            answer at its position, and the pretext. An answer of several word pieces or of none that is known cannot be
            told: -100, in ``text_label`` too. In the test split also ``question`` and ``answer_text``, the texts.

        Raises:
            UnusableItemError: as :class:`FrameAligner`.
            DataError: if it is no open-ended question, or a sentence without a blank; names the video.
        """
        if not isinstance(text_feature, OpenQuestion):
            raise DataError(f"video {video_id}: {type(text_feature).__name__} is no open-ended question")
        item = self.video(video_id, stored, rng)
        name = item["video_id"]
        text = self.counted(name, self.lay_out(words_of(text_feature.question, name), name))
        answer = self._piece(text_feature.answer_text)
        answer = IGNORED if text.answer < 0 else answer
        self.untold.add(answer == IGNORED, f"video {name}, {text_feature.texts[1:] or text_feature.answer_text}")
        item |= {**layout_tensors(text), **_answer(text, answer), **self.pretext(), "answers": torch.tensor(answer)}
        if self.split == "test" and text_feature.texts:
            item["question"], item["answer_text"] = text_feature.texts
        return item

    def lay_out(self, words: Sequence[int], name: str) -> Layout:
        """Lay out a question; ``name`` is that of the video."""
        return layouts.ask_openly(words, self.pieces("answer:"), self.max_text_len, self.special_ids)

    def _piece(self, ids: Sequence[int]) -> int:
        """Return the one id of an answer, -100 if it has more or is unknown."""
        unknown = load_tokenizer(self.bert_name, self.options.use_fast).unk_token_id
        return int(ids[0]) if len(ids) == 1 and ids[0] != unknown else IGNORED


class LAVENDERBlankAligner(LAVENDERQuestionAligner):
    """Align a clip with a sentence of which a word is to be filled in, a ``[MASK]`` among its own; else as questions.

    The layout is :func:`mmpt.processors.lavender_layouts.fill_in`. Where the blank is cut off, ``answer_position`` is
    -1 and the answer cannot be told.
    """

    context = "blank"

    def lay_out(self, words: Sequence[int], name: str) -> Layout:
        """Lay out a sentence; DataError if it has no blank."""
        if self.special_ids.mask not in words:
            raise DataError(f"video {name}: its sentence has no [MASK]: the word to fill in is unknown")
        return layouts.fill_in(words, self.max_text_len, self.special_ids)


def _answer(text: Layout, answer: int) -> dict[str, Tensor]:
    """Return where an answer stands, and labels that tell it there."""
    label = torch.full(text.caps.shape, IGNORED)
    if text.answer >= 0:
        label[text.answer] = answer
    return {"answer_position": torch.tensor(text.answer), "text_label": label}
