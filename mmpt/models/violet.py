"""VIOLET (Fu et al. 2021, arXiv:2111.12681): a few raw frames and a text, fused by one transformer.

Pre-training tells masked words (MLM), the visual tokens of masked squares (MVM) and the text of a video among others
(VTM). Downstream every task is the head ``fc`` on the fused state of the text's ``[CLS]``.

Shapes: B batch, T frames, S pixels of a side, P = 1 + h * w positions of a frame, X text positions, O options.
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
from mmpt.models.option_texts import hide_missing_options, pair_options, scores_of_listed_options
from mmpt.models.violet_masking import Masks, choose_masks
from mmpt.modules.lm_head import LMHead
from mmpt.modules.masking_visual import hide_squares
from mmpt.modules.pair_head import MatchingHead
from mmpt.modules.pairing import in_batch_negatives, of_same_video
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.tokenizers import special_ids

__all__ = [
    "MaskedSequenceOptions",
    "VIOLETMultipleChoice",
    "VIOLETOpenEnded",
    "VIOLETOpenEndedOptions",
    "VIOLETOptions",
    "VIOLETPretraining",
    "VIOLETPretrainingOptions",
    "VIOLETRetrieval",
]


@dataclasses.dataclass
class VIOLETOptions(CrossModalOptions):
    """Keys of ``model``, as :class:`CrossModalOptions`. The released weights are of a small Swin, whatever was said."""

    swin: str = "small"


@dataclasses.dataclass
class MaskedSequenceOptions(FrameSequenceOptions):
    """Keys of ``dataset``: with ``mask_probability``, the share of the joint positions that attention chooses."""

    mask_probability: float = 0.15


@dataclasses.dataclass
class VIOLETPretrainingOptions(VIOLETOptions, MatchingOptions):
    """Keys of ``model``: the size of the visual vocabulary, and how many texts a video is matched with at most."""

    visual_codes: int = 8192


@dataclasses.dataclass
class VIOLETOpenEndedOptions(VIOLETOptions, AnswerOptions):
    """Keys of ``model``, as :class:`AnswerOptions`."""


class VIOLETRetrieval(CrossModalModel):
    """VIOLET that scores how well a text fits a video, for retrieval; the head is that of pre-training's VTM."""

    # A checkpoint of open-ended questions has a head of another width.
    new_heads: ClassVar[tuple[str, ...]] = ("fc.3.*",)
    # Objectives of pre-training.
    allow_unexpected = (*CrossModalModel.allow_unexpected, "fc_mtm.*", "fc_mvm.*")
    config_options: ClassVar[dict[str, type]] = {"dataset": FrameSequenceOptions, "model": VIOLETOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.fc = MatchingHead(self.hidden_size, self.outputs)

    @property
    def outputs(self) -> int:
        """Width of the head's output."""
        return 1

    def classify(self, text: States, video: States) -> Tensor:
        """Fuse row i of the texts with row i of the videos: the head's output (N, outputs) at the text's ``[CLS]``."""
        return self.fc(self.fuse_at(video, text, video.values.shape[1]))

    def score_aligned(self, text: States, video: States) -> Tensor:
        """Score row i of the texts with row i of the videos, (N,)."""
        return self.classify(text, video)[:, 0]

    def forward(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """Score every text of the batch with every video: ``pair_scores`` (texts, videos).

        Args:
            caps: int64 (B, X), with ``cmasks``.
            vfeats: uint8 or float in [0, 1], (B, T, 3, S, S), with ``vmasks``.
        """
        video, text = self.encode_video(vfeats, vmasks), self.encode_text(caps, cmasks)
        return {"pair_scores": self.score_pairs(text, video)}


class VIOLETMultipleChoice(VIOLETRetrieval):
    """VIOLET that chooses among the options of a question, each read together with it as one text."""

    capabilities = frozenset({"fusion", "multiple_choice"})

    @property
    def joined_options(self) -> str | None:
        """The config key that says how many options one text holds at most; None: each option has a text of its own."""
        return None

    def option_scores(
        self,
        caps: Tensor,
        cmasks: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
        option_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Score the options of each question: (B, O).

        Args:
            caps: int64 (B, O, X) or (B * O, X), or (B, X) where :attr:`joined_options`, with ``cmasks``.
            vfeats: one video for each question, as :meth:`forward`.
            option_mask: bool (B, O) or (B * O,), false where a question has fewer options; these score -inf.

        Raises:
            DataError: if each option has its text, and the questions have unlike numbers of them.
            ConfigError: if questions have more options than the head has outputs.
        """
        if self.joined_options is not None:
            scores = self.classify(self.encode_text(caps, cmasks), self.encode_video(vfeats, vmasks))
            return scores_of_listed_options(scores, option_mask, self.joined_options)
        video, text = pair_options(self, caps, cmasks, vfeats, vmasks)
        return hide_missing_options(self.score_aligned(text, video).view(len(vfeats), -1), option_mask)

    def forward(self, answers: Tensor | None = None, **batch: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Return ``logits`` (B, O), and ``answers``, int64 (B,), as their ``targets``."""
        return _with_targets(self.option_scores(**batch), answers)


class VIOLETOpenEnded(VIOLETRetrieval):
    """VIOLET that answers a question by one of a list of answers.

    Raises:
        ConfigError: if ``model.num_labels`` is not a number of answers.
    """

    capabilities = frozenset({"answering"})
    config_options: ClassVar[dict[str, type]] = {"dataset": FrameSequenceOptions, "model": VIOLETOpenEndedOptions}

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 32-d encoder of small frames and 5 answers, randomly initialised, for tests."""
        return tiny_cross_modal_config(cls.__name__, model={"num_labels": 5})

    @property
    def outputs(self) -> int:
        """The number of answers."""
        if self.options.num_labels is None or self.options.num_labels < 1:
            raise ConfigError(f"model.num_labels: {self.options.num_labels} is not a number of answers (1 or more)")
        return self.options.num_labels

    def score_aligned(self, text: States, video: States) -> Tensor:
        """Refuse: answers have scores, pairs have not."""
        raise ConfigError("model.model_cls: VIOLETOpenEnded scores answers, not pairs; VIOLETRetrieval does")

    def answer_scores(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **kwargs: Any) -> Tensor:
        """Score the answers to the question about each video, (B, answers); arguments as :meth:`forward`."""
        return self.classify(self.encode_text(caps, cmasks), self.encode_video(vfeats, vmasks))

    def forward(self, answers: Tensor | None = None, **batch: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Return ``logits`` (B, answers), and ``answers``, int64 (B,), -100 if not listed, as their ``targets``."""
        return _with_targets(self.answer_scores(**batch), answers)


class VIOLETPretraining(VIOLETRetrieval):
    """VIOLET's three objectives, all on the same masked video and masked text (sections 3.2 and 3.3)."""

    capabilities = frozenset({"fusion", "masked_modeling"})
    with_lm_head = True
    allow_unexpected = CrossModalModel.allow_unexpected
    config_options: ClassVar[dict[str, type]] = {"dataset": MaskedSequenceOptions, "model": VIOLETPretrainingOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.options.check()
        if self.options.visual_codes < 1:
            raise ConfigError(f"model.visual_codes: must be at least 1, not {self.options.visual_codes}")
        if not 0 <= self.sequence.mask_probability <= 1:
            raise ConfigError(f"dataset.mask_probability: {self.sequence.mask_probability} is not in [0, 1]")
        self.fc_mvm = MatchingHead(self.hidden_size, self.options.visual_codes)
        self.special_ids = special_ids(self.sequence.bert_name, self.sequence.use_fast)

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 32-d encoder of small frames and 32 visual tokens, randomly initialised, for tests."""
        return tiny_cross_modal_config(cls.__name__, model={"visual_codes": 32})

    def forward(  # type: ignore[override]
        self,
        caps: Tensor,
        cmasks: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
        visual_codes: Tensor,
        masked_words: Tensor,
        masked_squares: Tensor,
        attended: Tensor | None = None,
        selection_noise: Tensor | None = None,
        negatives: Tensor | None = None,
        video_key: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Mask the batch, and tell what was masked and which text belongs to each video.

        Args:
            caps: int64 (B, X), nothing masked, with ``cmasks``.
            vfeats: uint8 or float in [0, 1], (B, T, 3, S, S), nothing masked, with ``vmasks``.
            visual_codes: int64 (B, T, h, w).
            masked_words: bool (B, X), the words that blockwise masking has chosen.
            masked_squares: bool (B, T, h, w), its squares.
            attended: bool (B,), true of the samples of which attention chooses both instead.
            selection_noise: (B, T * P + X), by which that choice is random.
            negatives: int64 (B, O - 1), rows of the texts that each video is matched with beside its own; by default
                the next ones, as many as ``model.matching_texts`` and the batch allow.
            video_key: int64 (B,), equal for items of the same video, whose texts are no negatives of each other.

        Returns:
            ``text_logits`` (masked words, V), put off in training, with ``text_targets``, ``code_logits`` (masked
            squares, codes) with ``code_targets``, and ``matching_scores`` (B, O), of which column 0 is the video's own
            text; another of the same video scores -inf.

        Raises:
            DataError: if there is not one visual token for each patch of a frame.
        """
        self._check_grid(vfeats, visual_codes)
        chosen = Masks(masked_words.bool(), masked_squares.bool() & vmasks.bool()[:, :, None, None])
        if attended is not None and selection_noise is not None:
            chosen = self._attended(chosen, attended.bool(), selection_noise, caps, cmasks, vfeats, vmasks)
        video = self.encode_video(hide_squares(vfeats, chosen.squares), vmasks)
        text = self.encode_text(caps.masked_fill(chosen.words, self.special_ids.mask), cmasks)
        if negatives is None:
            negatives = in_batch_negatives(len(caps), self.options.matching_texts, caps.device)
        length = video.values.shape[1]
        # behind the [CLS] of its frame
        squares = torch.nn.functional.pad(chosen.squares.flatten(2), (1, 0)).flatten(1)
        wanted = (torch.cat([squares, torch.zeros_like(chosen.words)], dim=1), chosen.words)
        (squares, words), matched = self.fuse_candidates(video, text, negatives, wanted, length)
        scores = self.fc(matched)[..., 0]
        return {
            "text_logits": cast(LMHead, self.fc_mtm["predictions"]).tell(words),
            "text_targets": caps[chosen.words],
            "code_logits": self.fc_mvm(squares),
            "code_targets": visual_codes[chosen.squares],
            "matching_scores": scores.masked_fill(of_same_video(negatives, video_key), -torch.inf),
        }

    def _check_grid(self, vfeats: Tensor, visual_codes: Tensor) -> None:
        rows, columns = visual_codes.shape[-2:]
        stride = self.enc_img.swin.options.stride
        if (rows * stride, columns * stride) != vfeats.shape[-2:]:
            raise DataError(
                f"{rows} x {columns} visual tokens do not fit frames of {tuple(vfeats.shape[-2:])} pixels, one per "
                f"{stride} x {stride}: dataset.vq_path must be made for frames of dataset.image_size"
            )

    def _attended(
        self,
        blockwise: Masks,
        attended: Tensor,
        noise: Tensor,
        caps: Tensor,
        cmasks: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
    ) -> Masks:
        """Return the masks with those of the ``attended`` samples in place; these take one more forward pass each."""
        rows = attended.nonzero()[:, 0]
        if not len(rows):
            return blockwise
        with torch.no_grad():  # in the model's own mode: in training with dropout, as published
            video = self.encode_video(vfeats[rows], vmasks[rows])
            scores = self.attention_received(video, self.encode_text(caps[rows], cmasks[rows]))
        drawn = choose_masks(
            scores,
            noise[rows],
            self.sequence.mask_probability,
            caps[rows],
            vmasks[rows].bool(),
            blockwise.squares.shape[-2:],
            self.special_ids,
        )
        return Masks(
            blockwise.words.index_copy(0, rows, drawn.words), blockwise.squares.index_copy(0, rows, drawn.squares)
        )


def _with_targets(logits: Tensor, answers: Tensor | None) -> dict[str, Tensor]:
    return {"logits": logits} if answers is None else {"logits": logits, "targets": answers.reshape(-1)}
