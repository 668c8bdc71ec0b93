"""The texts of VCR as MERLOT (arXiv:2106.02636) and MERLOT Reserve (arXiv:2201.02639) read them beside the image.

Shapes: Q questions of an item, X text positions, (H, W) pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.modules import reserve_tokens
from mmpt.processors.cut_texts import CutTexts
from mmpt.processors.merlot_questions import lay_out_merlot
from mmpt.processors.oblong_frames import MERLOTItemOptions, ReserveItemOptions, merlot_frames, reserve_frames
from mmpt.processors.subword_texts import Tokenised
from mmpt.processors.vcr import CHOICES, Asked
from mmpt.store.frame_store import StoredFrames
from mmpt.utils.errors import ConfigError
from mmpt.utils.options import read_options

__all__ = ["MERLOTVCRAligner", "ReserveVCRAligner"]


class _VCRAligner(Tokenised, ABC):
    """What the aligners of both systems share: the image, and the numbers of the questions."""

    whole_videos: ClassVar[bool] = False

    def __init__(self, config: Any, options: Any, length: int, key: str, frames: Any) -> None:
        super().__init__(config)
        if length < 8:
            raise ConfigError(f"dataset.{key}: {length} has no room for a question (8 or more)")
        self.split, self.length, self.frames = options.split, length, frames
        self.cut = CutTexts(f"are cut: dataset.{key} leaves too little room")

    @abstractmethod
    def lay_out(self, asked: Asked) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids int64 and mask bool (4, X) of the choices of a question."""

    def item(self, stored: Sequence[StoredFrames], questions: Sequence[Asked], rng: Any) -> dict[str, Any]:
        """Return the image and what tells the questions; ``caps`` (Q, 4, X) and ``answers`` (Q,)."""
        name, drawn = questions[0].question_id, rng if self.split == "train" else None
        chosen = stored[int(drawn.integers(len(stored)))] if drawn is not None else stored[0]
        vfeats, vmasks = self.frames(list(chosen[:1]), f"question {name}", 1, drawn)
        laid_out = [self.lay_out(asked) for asked in questions]
        return {
            "vfeats": vfeats,
            "vmasks": vmasks,
            "caps": torch.stack([caps for caps, _ in laid_out]),
            "cmasks": torch.stack([mask for _, mask in laid_out]),
            "answers": torch.tensor([asked.label for asked in questions]),
            "question_kind": torch.tensor([asked.kind for asked in questions]),
            "given": torch.tensor([asked.given for asked in questions]),
            "video_id": name,
        }

    def count_cut(self, asked: Asked, over: int) -> None:
        """Count a question of which ``over`` ids, if positive, do not fit."""
        self.cut.add(over > 0, f"question {asked.question_id}, {over} ids too many")


class MERLOTVCRAligner(_VCRAligner):
    """Lay a question out for MERLOT: ``START " answer question:" | " provide rationale:" context choice END``.

    A context that does not fit beside the longest choice is cut at its end, the same for every choice.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": MERLOTItemOptions}
    _PREFIXES = (" answer question:", " provide rationale:")

    def __init__(self, config: Any) -> None:
        """Read the sizes; ConfigError if one cannot be."""
        options = read_options(config, MERLOTItemOptions)
        super().__init__(config, options, options.max_text_len, "max_text_len", merlot_frames(config))

    def lay_out(self, asked: Asked) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids int64 and mask bool (4, X) of the choices of a question."""
        prefix = self.ids(self._PREFIXES[asked.kind])
        choices = [self.ids(choice) for choice in asked.choices]
        context = self.ids(asked.context)
        room = max(self.length - 2 - len(prefix) - max(map(len, choices)), 0)
        self.count_cut(asked, len(context) - room)
        rows = [lay_out_merlot([*prefix, *context[:room], *choice], self.length) for choice in choices]
        return torch.stack([caps for caps, _ in rows]), torch.stack([mask for _, mask in rows])

    def __call__(
        self,
        video_id: Any,
        stored: Sequence[StoredFrames],
        text_feature: Sequence[Asked],
        rng: np.random.Generator | None = None,
    ) -> dict[str, Any]:
        """Return the model inputs of one question.

        Returns:
            ``vfeats`` uint8 (1, 3, H, W), ``vmasks`` bool (1,), ``caps`` int64 and ``cmasks`` bool (4, X), ``answers``
            int64 (1,), -1 where it is not known, ``question_kind`` int64 (), 0 answer or 1 rationale, ``given`` int64
            (), and ``video_id``, the annotation's id.

        Raises:
            UnusableItemError: if the image is damaged; names the question.
        """
        item = self.item(stored, text_feature[:1], rng)
        return item | {key: item[key][0] for key in ("caps", "cmasks", "question_kind", "given")}


class ReserveVCRAligner(_VCRAligner):
    """Lay questions out for Reserve: ``context "answer: " | "rationale: " choice``, cut to X - 1 ids, then MASK."""

    config_options: ClassVar[dict[str, type]] = {"dataset": ReserveItemOptions}
    _PREFIXES = ("answer: ", "rationale: ")

    def __init__(self, config: Any) -> None:
        """Read the sizes; ConfigError if one cannot be."""
        options = read_options(config, ReserveItemOptions)
        super().__init__(config, options, options.lang_seq_len, "lang_seq_len", reserve_frames(config))

    def lay_out(self, asked: Asked) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids int64 and mask bool (4, X) of the choices of a question."""
        before = [*self.ids(asked.context), *self.ids(self._PREFIXES[asked.kind])]
        caps = torch.full((CHOICES, self.length), reserve_tokens.PAD)
        over = 0
        for row, choice in zip(caps, asked.choices, strict=True):
            ids = [*before, *self.ids(choice)]
            over = max(over, len(ids) - (self.length - 1))
            ids = [*ids[: self.length - 1], reserve_tokens.MASK]
            row[: len(ids)] = torch.tensor(ids)
        self.count_cut(asked, over)
        return caps, caps != reserve_tokens.PAD

    def __call__(
        self,
        video_id: Any,
        stored: Sequence[StoredFrames],
        text_feature: Sequence[Asked],
        rng: np.random.Generator | None = None,
    ) -> dict[str, Any]:
        """Return the model inputs of the questions about one image: in training Q->A and QA->R.

        Returns:
            ``vfeats`` uint8 (1, 3, H, W), ``vmasks`` bool (1,), ``caps`` int64 and ``cmasks`` bool (Q, 4, X),
            ``answers``, -1 where it is not known, ``question_kind`` and ``given`` int64 (Q,), and ``video_id``, the
            annotation's id. In training the image is its mirror image half of the time, where there is one.

        Raises:
            UnusableItemError: if the image is damaged; names the question.
        """
        return self.item(stored, text_feature, rng)
