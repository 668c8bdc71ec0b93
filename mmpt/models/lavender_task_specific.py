"""The baselines that LAVENDER (arXiv:2206.07160, section 4.2) is compared with: a head ``fc`` for each kind of task.

They are VIOLET's models with the larger Swin; what multiple choice reads as one text, they classify. No prompts.

Shapes: B batch, T frames, S pixels of a side, X text positions, O options, V words.
"""

import dataclasses
from typing import Any, ClassVar, cast

import torch
from omegaconf import DictConfig
from torch import Tensor

from mmpt.models.cross_modal import (
    CrossModalModel,
    CrossModalOptions,
    FrameSequenceOptions,
    States,
    tiny_cross_modal_config,
)
from mmpt.models.cross_modal_options import AnswerOptions, MatchingOptions
from mmpt.models.lavender_base import LAVENDERBase
from mmpt.models.violet import VIOLETMultipleChoice, VIOLETOpenEnded, VIOLETRetrieval
from mmpt.modules.lm_head import LMHead
from mmpt.modules.masking import IGNORED
from mmpt.modules.pairing import in_batch_negatives, of_same_video
from mmpt.utils.errors import ConfigError

__all__ = [
    "LAVENDERTaskSpecificChoice",
    "LAVENDERTaskSpecificOpenEnded",
    "LAVENDERTaskSpecificOptions",
    "LAVENDERTaskSpecificPretraining",
    "LAVENDERTaskSpecificRetrieval",
]

# What pre-training, LAVENDER itself and its variants with a head per task have beside.
_OTHERS = (*CrossModalModel.allow_unexpected, "fc_*.*", "emb_task")


@dataclasses.dataclass
class ChoiceOptions(CrossModalOptions):
    """Keys of ``model``: ``num_options`` is how many options a question has at most."""

    num_options: int = 5


class LAVENDERTaskSpecificRetrieval(LAVENDERBase, VIOLETRetrieval):
    """Baseline of retrieval: the head scores a pair. Trained by :class:`~mmpt.losses.matching.PairMatchingLoss`.

    The published loss seeks texts and videos: ``loss.symmetric: true``.
    """

    allow_unexpected = _OTHERS
    new_heads = ("fc.*",)  # LAVENDER's own pre-training has none
    config_options: ClassVar[dict[str, type]] = {"dataset": FrameSequenceOptions, "model": CrossModalOptions}


class LAVENDERTaskSpecificOptions(LAVENDERBase, VIOLETMultipleChoice):
    """Baseline of multiple choice with a text for each option, as MSRVTT-MC and LSMDC-MC."""

    allow_unexpected = _OTHERS
    new_heads = ("fc.*",)
    config_options: ClassVar[dict[str, type]] = {"dataset": FrameSequenceOptions, "model": CrossModalOptions}


class LAVENDERTaskSpecificChoice(LAVENDERBase, VIOLETMultipleChoice):
    """Baseline of multiple choice with one text for all options: the head has an output for the number of each.

    Raises:
        ConfigError: if ``model.num_options`` is no number of options.
    """

    capabilities = frozenset({"multiple_choice"})
    allow_unexpected = _OTHERS
    new_heads = ("fc.*",)
    config_options: ClassVar[dict[str, type]] = {"dataset": FrameSequenceOptions, "model": ChoiceOptions}

    @property
    def outputs(self) -> int:
        """The number of options."""
        if self.options.num_options < 2:
            raise ConfigError(f"model.num_options: {self.options.num_options} leaves no choice (2 or more)")
        return self.options.num_options

    def score_aligned(self, text: States, video: States) -> Tensor:
        """Refuse: numbers of options have scores, pairs have not."""
        raise ConfigError(
            f"model.model_cls: {type(self).__name__} scores the options of a question, not pairs; "
            "LAVENDERTaskSpecificRetrieval does"
        )

    @property
    def joined_options(self) -> str:
        """The config key that says how many options one text holds at most."""
        return "model.num_options"


class LAVENDERTaskSpecificOpenEnded(LAVENDERBase, VIOLETOpenEnded):
    """Baseline of open-ended questions: the head has an output for each of a list of answers.

    Raises:
        ConfigError: if ``model.num_labels`` is not a number of answers.
    """

    allow_unexpected = _OTHERS
    new_heads = ("fc.*",)
    config_options: ClassVar[dict[str, type]] = {"dataset": FrameSequenceOptions, "model": AnswerOptions}


class LAVENDERTaskSpecificPretraining(LAVENDERBase, VIOLETRetrieval):
    """Pre-training of the baselines: masked words, and which text belongs to a video.

    Raises:
        ConfigError: if ``model.matching_texts`` is less than 1.
    """

    capabilities = frozenset({"fusion", "masked_modeling"})
    with_lm_head = True
    allow_unexpected = (*CrossModalModel.allow_unexpected, "fc_*_*.*", "emb_task")
    new_heads = ("fc.*",)
    config_options: ClassVar[dict[str, type]] = {"dataset": FrameSequenceOptions, "model": MatchingOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.options.check()

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 32-d encoder of small frames, randomly initialised, for tests."""
        return tiny_cross_modal_config(cls.__name__)

    def forward(  # type: ignore[override]
        self,
        caps: Tensor,
        cmasks: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
        text_label: Tensor,
        negatives: Tensor | None = None,
        video_key: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Tell masked words, and score each video with its text and with others.

        Args:
            caps: int64 (B, X), masked, with ``cmasks``.
            vfeats: uint8 or float in [0, 1], (B, T, 3, S, S), with ``vmasks``.
            text_label: int64 (B, X), -100 where nothing is to be told.
            negatives: int64 (B, O - 1), rows of the texts that each video is compared with beside its own; by default
                the next ones, as many as ``model.matching_texts`` and the batch allow.
            video_key: int64 (B,), equal for items of the same video, whose texts are no negatives of each other.

        Returns:
            ``logits`` float32 (labelled positions, V), put off in training, and ``matching_scores`` (B, O), of which
            column 0 is the video's own text; -inf for another of the same video.
        """
        video, text = self.encode_video(vfeats, vmasks), self.encode_text(caps, cmasks)
        if negatives is None:
            negatives = in_batch_negatives(len(caps), self.options.matching_texts, caps.device)
        told = text_label != IGNORED
        (words,), matched = self.fuse_candidates(video, text, negatives, (told,), video.values.shape[1])
        scores = self.fc(matched)[..., 0]
        return {
            "logits": cast(LMHead, self.fc_mtm["predictions"]).tell(words),
            "matching_scores": scores.masked_fill(of_same_video(negatives, video_key), -torch.inf),
        }
