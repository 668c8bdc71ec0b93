"""Clips and texts as LAVENDER reads them (arXiv:2206.07160, section 3): every answer is told at a ``[MASK]``.

An item says by ``objective`` what a batch of its kind trains (:meth:`mmpt.models.lavender.LAVENDER.forward`). Here are
the aligners of texts that belong to a clip or do not; :mod:`mmpt.processors.lavender_questions` has the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmpt.modules.masking import hide_tokens, maskable
from mmpt.processors import lavender_layouts as layouts
from mmpt.processors.base import flat_ids
from mmpt.processors.frame_base import FrameAligner, FrameAlignerOptions
from mmpt.processors.msrvtt_qa import Choice, OptionsAligner
from mmpt.processors.text_layouts import Layout, plain
from mmpt.utils.errors import ConfigError, DataError, nearest
from mmpt.utils.options import read_options
from mmpt.utils.tokenizers import load_tokenizer

__all__ = [
    "CONTEXTS",
    "LAVENDERAligner",
    "LAVENDERAlignerOptions",
    "LAVENDERMatchingAligner",
    "LAVENDEROptionsAligner",
    "layout_tensors",
    "words_of",
]


class Context(NamedTuple):
    """What may stand before the texts of a task: a prompt, or a row of the model's ``emb_task``."""

    prompt: str
    task_id: int


#: The published prompts and task tokens; ``{numbers}`` are those of the options.
CONTEXTS = {
    "matching": Context("is the video-text paired, true or false?", 0),
    "options": Context("is the video-text matched, true or false?", 0),
    "choice": Context("which answer is correct, from [{numbers}]?", 1),
    "question": Context("answer the question about the video.", 2),
    "blank": Context("fill in the mask to complete the sentence.", 2),
    "captioning": Context("write a description about the video.", 3),
}


@dataclass
class LAVENDERAlignerOptions(FrameAlignerOptions):
    """Sizes of the model input, and what stands before the texts.

    Attributes:
        prompt: whether the task's prompt does.
        task_token: whether the vector of the task does, in place of a prompt.
        mask_pos: multiple choice: where ``[MASK]`` stands, ``append``, ``prepend``, ``insert`` or ``replace``.
        mask_probability: pre-training: of each word piece, to be masked.
    """

    prompt: bool = False
    task_token: bool = False
    mask_pos: str = "append"
    mask_probability: float = 0.15


class LAVENDERAligner(FrameAligner):
    """What the aligners of all tasks share; ``context`` is one of :data:`CONTEXTS`.

    The published code gives most tasks the token of matching whatever they are (and so never trains "mc" but in
    multi-task training); here each has its own.

    Raises:
        ConfigError: if an option cannot be used; names the key.
    """

    context: ClassVar[str]
    config_options: ClassVar[dict[str, type]] = {"dataset": LAVENDERAlignerOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.options = read_options(config, LAVENDERAlignerOptions)
        if not 0 <= self.options.mask_probability <= 1:
            raise ConfigError(f"dataset.mask_probability: {self.options.mask_probability} is not in [0, 1]")
        if self.options.mask_pos not in layouts.MASK_POSITIONS:
            raise ConfigError(
                f"dataset.mask_pos: {self.options.mask_pos!r} is none of {', '.join(layouts.MASK_POSITIONS)}."
                f"{nearest(self.options.mask_pos, layouts.MASK_POSITIONS)}"
            )
        self._prompts: dict[str, Tensor] = {}

    def pretext(self, options: int = 0) -> dict[str, Tensor]:
        """Return ``task_ids`` int64 (), or ``prompts`` int64 (Lp,), or nothing, as the config says.

        Args:
            options: how many options there are, which the prompt of multiple choice lists.
        """
        context = CONTEXTS[self.context]
        if self.options.task_token:
            return {"task_ids": torch.tensor(context.task_id)}
        if not self.options.prompt:
            return {}
        text = context.prompt.replace("{numbers}", ", ".join(map(str, range(options))))
        if text not in self._prompts:
            self._prompts[text] = torch.from_numpy(layouts.prompt_ids(self.pieces(text), self.special_ids))
        return {"prompts": self._prompts[text].clone()}  # an item is its receiver's to change

    def pieces(self, text: str) -> list[int]:
        """Return the ids of a text's word pieces, without special ones."""
        tokenizer = load_tokenizer(self.bert_name, self.options.use_fast)
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def counted(self, name: str, layout: Layout) -> Layout:
        """Count a text, and whether it was cut; return it."""
        self.count_cut(name, layout.cut)
        return layout


class LAVENDERMatchingAligner(LAVENDERAligner):
    """Align a clip with a text and the ``[MASK]`` after it: does the text belong to the clip?

    Args:
        config: section dataset.
        masked: pre-training: words are masked too, to be told.
        matched: whether there is that ``[MASK]``; the task-specific baseline has none.
    """

    context = "matching"

    def __init__(self, config: Any, masked: bool = False, matched: bool = True) -> None:
        super().__init__(config)
        self.masked, self.matched = masked, matched

    def lay_out(self, words: Sequence[int]) -> Layout:
        """Lay out one text: with the ``[MASK]``, or plainly."""
        lay_out = layouts.match if self.matched else plain
        return lay_out(words, self.max_text_len, self.special_ids)

    def text(self, words: Any) -> tuple[Tensor, Tensor]:
        """Return ids and mask (X,) of one text, as those of an item: a model scores it at its ``[MASK]``."""
        text = self.lay_out(flat_ids(words).tolist())
        return torch.from_numpy(text.caps), torch.from_numpy(text.cmasks)

    def __call__(
        self, video_id: Any, stored: Any, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return a clip and a text.

        Args:
            video_id: id, or ``(id, start, end)``.
            stored: the frames, of a :class:`~mmpt.processors.frame_base.FrameVideoProcessor`.
            text_feature: ids of word pieces.
            rng: draws frames and crops in training, and masked words.

        Returns:
            The clip as :class:`FrameAligner`, ``caps`` int64 and ``cmasks`` bool (X,) as
            :func:`mmpt.processors.lavender_layouts.match` or :func:`mmpt.processors.text_layouts.plain`,
            ``objective``, the pretext, and of masked texts ``text_label`` int64 (X,), -100 where nothing is to be told.
            In the test split also ``text``.

        Raises:
            UnusableItemError: as :class:`FrameAligner`.
            DataError: if the ids are not a flat list; names the video.
        """
        item = self.video(video_id, stored, rng)
        text = self.counted(item["video_id"], self.lay_out(words_of(text_feature, item["video_id"])))
        item |= {**layout_tensors(text), **self.pretext(), "objective": "pretraining" if self.masked else "retrieval"}
        if self.masked:
            rng = np.random.default_rng() if rng is None else rng
            eligible = maskable(text.caps, self.special_ids) & (text.caps != self.special_ids.mask)
            hidden = hide_tokens(rng, text.caps, eligible, self.options.mask_probability, self.special_ids.mask)
            item["caps"], item["text_label"] = map(torch.from_numpy, hidden)
        written = getattr(text_feature, "text", None)
        return {**item, "text": written} if self.split == "test" and written is not None else item


class LAVENDEROptionsAligner(OptionsAligner, LAVENDERAligner):
    """Align a clip with each option of a question as a text of its own: which of them belongs to the clip?"""

    context = "options"

    @property
    def max_words(self) -> int:
        """Word pieces that fit beside ``[CLS]`` and ``[SEP]``."""
        return self.max_text_len - 2

    def lay_out(self, words: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return ids and mask (X,) of one text, with the ``[MASK]`` after it."""
        text = layouts.match(words, self.max_text_len, self.special_ids)
        return torch.from_numpy(text.caps), torch.from_numpy(text.cmasks)

    def text(self, words: Any) -> tuple[Tensor, Tensor]:
        """Return ids and mask (X,) of one text, as those of an option: a model scores it at its ``[MASK]``."""
        return self.lay_out(flat_ids(words).tolist())

    def __call__(
        self, video_id: Any, stored: Any, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return the clip, once, with all options.

        A question that does not fit beside the longest option is cut at its end, the same for every option (published:
        the option is cut).

        Returns:
            The clip as :class:`FrameAligner`; ``caps`` int64 and ``cmasks`` bool (O, X) of ``question option`` as
            :func:`mmpt.processors.lavender_layouts.match`; ``answers`` int64 (1,); the pretext, one for each option;
            ``objective``. Where the options of the corpus differ in number, ``option_mask`` bool (O,) is false on the
            rows that only fill up. In the test split also ``question`` and ``options``, the texts.

        Raises:
            UnusableItemError: as :class:`FrameAligner`.
            DataError: if the right option is none of them, or the ids are not flat lists; names the video.
        """
        item = {**self.question_item(video_id, text_feature), **self.video(video_id, stored, rng)}
        self.count_cut(item["video_id"], self.too_many(Choice(*text_feature)))
        rows = len(item["caps"])
        # As many leading dimensions as caps: what merges those of a batch must take the two for alike.
        pretext = {key: value.expand(rows, *value.shape).clone() for key, value in self.pretext().items()}
        return {**item, **pretext, "objective": "options"}


def words_of(text_feature: Any, name: str) -> list[int]:
    """Return ids of word pieces as a list; DataError if they are none, names the video."""
    try:
        return flat_ids(text_feature).tolist()
    except DataError as error:
        raise DataError(f"video {name}: {error}") from error


def layout_tensors(text: Layout) -> dict[str, Tensor]:
    """Return ``caps`` and ``cmasks`` of a text."""
    return {"caps": torch.from_numpy(text.caps), "cmasks": torch.from_numpy(text.cmasks)}
