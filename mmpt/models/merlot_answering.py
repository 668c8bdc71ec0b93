"""MERLOT (arXiv:2106.02636, section 4) that answers: each option is a text, read together with the images.

Shapes: B questions, each about one video or image, T frames, S pixels of a side, O options, X text positions, H hidden.
"""

from typing import Any, ClassVar

import torch
from omegaconf import DictConfig
from torch import Tensor

from mmpt.models.cross_modal import States
from mmpt.models.merlot_base import MERLOTBase
from mmpt.models.merlot_options import tiny_merlot_config
from mmpt.models.option_texts import hide_missing_options, pair_options
from mmpt.modules.merlot_heads import AnswerHead
from mmpt.modules.truncated_init import initialise_truncated
from mmpt.utils.errors import DataError

__all__ = ["MERLOTAnswering", "MERLOTVCR"]

# Of pre-training: the heads, and the embeddings of the language-only encoder.
_PRETRAINING = ("lm_head.*", "language_text.*", "text_head.*", "image_head.*", "*_image_order.*")


class MERLOTAnswering(MERLOTBase):
    """MERLOT that chooses among the texts of a question's options by one score of each."""

    capabilities = frozenset({"multiple_choice"})
    new_heads: ClassVar[tuple[str, ...]] = ("classifier.*",)
    allow_unexpected: ClassVar[tuple[str, ...]] = (*_PRETRAINING, "answer_cls.*", "rationale_cls.*")
    heads: ClassVar[tuple[str, ...]] = ("classifier",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for name in self.heads:
            head = AnswerHead(self.options.hidden_size, self.options.dropout)
            initialise_truncated(head, self.options.initializer_range)
            head.reset_bias()
            self.add_module(name, head)

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 32-d model without convolutions, for tests."""
        return tiny_merlot_config(cls.__name__, model={"resnet_layers": []})

    def encode_video(self, vfeats: Tensor, vmasks: Tensor | None = None) -> States:
        """Embed frames for the joint encoder, as :meth:`embed_video`."""
        return self.embed_video(vfeats, vmasks)

    def encode_text(self, caps: Tensor, cmasks: Tensor) -> States:
        """Embed texts for the joint encoder, as :meth:`embed_text`."""
        return self.embed_text(caps, cmasks)

    def option_states(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor | None = None) -> Tensor:
        """Return the state of each option's first token, (B, O, H); arguments as :meth:`option_scores`."""
        if vmasks is None:
            vmasks = torch.ones(vfeats.shape[:2], dtype=torch.bool, device=vfeats.device)
        video, text = pair_options(self, caps, cmasks, vfeats, vmasks)
        return self.fuse(video, text)[:, video.values.shape[1]].unflatten(0, (len(vfeats), -1))

    def option_scores(
        self,
        caps: Tensor,
        cmasks: Tensor,
        vfeats: Tensor,
        vmasks: Tensor | None = None,
        option_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Score the options of each question: (B, O).

        Args:
            caps: int64 (B, O, X) or (B * O, X), START first, with ``cmasks``.
            vfeats: uint8 or floats in [0, 1], (B, T, 3, S, S), one video for each question.
            vmasks: (B, T), true where a frame is real; all are by default.
            option_mask: bool (B, O) or (B * O,), false where a question has fewer options; these score -inf.
            kwargs: more of a question, which a subclass asks for.

        Raises:
            DataError: if the questions have unlike numbers of options.
        """
        states = self.option_states(caps, cmasks, vfeats, vmasks)
        return hide_missing_options(self.score(states, **kwargs), option_mask)

    def score(self, states: Tensor, **kwargs: Any) -> Tensor:
        """Score the states of options (B, O, H): (B, O)."""
        return self.get_submodule(self.heads[0])(states)

    def forward(self, answers: Tensor | None = None, **batch: Any) -> dict[str, Tensor]:
        """Return ``logits`` (B, O), and ``answers``, int64 (B,), as their ``targets``."""
        logits = self.option_scores(**batch)
        return {"logits": logits} if answers is None else {"logits": logits, "targets": answers.reshape(-1)}


class MERLOTVCR(MERLOTAnswering):
    """MERLOT on visual commonsense reasoning: one head for answers and one for rationales, in one training."""

    new_heads: ClassVar[tuple[str, ...]] = ("answer_cls.*", "rationale_cls.*")
    allow_unexpected: ClassVar[tuple[str, ...]] = (*_PRETRAINING, "classifier.*")
    heads: ClassVar[tuple[str, ...]] = ("answer_cls", "rationale_cls")

    def score(self, states: Tensor, question_kind: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Score the states of options (B, O, H): (B, O).

        Args:
            question_kind: int64 (B,), 0 where the options are answers, 1 where they are rationales.

        Raises:
            DataError: if there is none.
        """
        if question_kind is None:
            raise DataError("a batch of VCR has no question_kind (0 answer, 1 rationale); dataset.aligner must make it")
        # Both heads see every option: a worker whose batch has one kind alone has gradients of the other too.
        scores = torch.stack([self.get_submodule(name)(states) for name in self.heads], dim=-1)
        kind = question_kind.reshape(-1, 1, 1).expand(*states.shape[:2], 1)
        return scores.gather(-1, kind)[..., 0]
