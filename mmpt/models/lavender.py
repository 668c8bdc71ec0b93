"""LAVENDER (Li et al., CVPR 2023, arXiv:2206.07160): every video-language task as masked language modelling.

One head over the vocabulary, ``fc_mtm``, tells words that are masked, and by the ``[MASK]`` that each task's text holds
the answer: "true" or "false" of a pair, the number of an option, the word piece of an answer. So a model that was
trained on one task can do every other one.

Shapes: B batch, T frames, S pixels of a side, X text positions, O options, Lp positions of a prompt, H hidden, V words.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mmpt.models.cross_modal import (
    CrossModalModel,
    FrameSequenceOptions,
    States,
    tiny_cross_modal_config,
)
from mmpt.models.lavender_base import LAVENDERBase
from mmpt.models.lavender_batches import objective_of, pretext_of
from mmpt.models.lavender_matching import LAVENDERMatching, LAVENDERMatchingOptions
from mmpt.models.option_texts import hide_missing_options
from mmpt.modules.valid_states import places_at
from mmpt.utils.errors import DataError

__all__ = ["LAVENDER", "TASK_TOKENS"]

#: Rows of ``emb_task``.
TASK_TOKENS = 10


class LAVENDER(LAVENDERBase, LAVENDERMatching):
    """One model and one head for pre-training, retrieval, multiple choice, open-ended questions and captioning.

    Raises:
        ConfigError: if a key has a wrong value; names it.
        CheckpointError: if pretrained weights are asked for and absent or unfit.
    """

    capabilities = frozenset({"fusion", "masked_modeling", "multiple_choice", "answering", "captioning"})
    # What SwinBERT and the task-specific baseline do not have: a training may begin without.
    new_heads: ClassVar[tuple[str, ...]] = ("emb_task", "enc_img.emb_*", "enc_img.norm.*")
    # Heads of the task-specific baseline and of its variants with a head per task.
    allow_unexpected: ClassVar[tuple[str, ...]] = (*CrossModalModel.allow_unexpected, "fc.*", "fc_*_*.*")
    config_options: ClassVar[dict[str, type]] = {"dataset": FrameSequenceOptions, "model": LAVENDERMatchingOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.emb_task = nn.Parameter(0.02 * torch.randn(TASK_TOKENS, self.hidden_size))

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 32-d encoder of small frames, randomly initialised, for tests."""
        return tiny_cross_modal_config(cls.__name__, model={"true_word": "w0", "false_word": "w1"})

    def encode_text(
        self,
        caps: Tensor,
        cmasks: Tensor,
        prompts: Tensor | None = None,
        task_ids: Tensor | None = None,
        **pretext: Tensor | None,
    ) -> States:
        """Embed token ids (B, X), with masks, and before them what says which task it is.

        Args:
            caps: int64; positions count from 0.
            cmasks: true where a position may be seen.
            prompts: int64 (B, Lp), or (1, Lp) for all: ``[CLS] w.. [SEP]``, embedded by itself, its positions from 0.
            task_ids: int64 (B,), rows of ``emb_task``, which have neither position nor norm; used in place of a prompt.

        Returns:
            States (B, Lp + X, H), (B, 1 + X, H), or (B, X, H).
        """
        text = States(self.enc_txt.emb_txt(caps), cmasks.bool())
        if task_ids is not None:
            before = self.emb_task[task_ids][:, None]
        elif prompts is not None:
            before = self.enc_txt.emb_txt(prompts).expand(len(caps), -1, -1)
        else:
            return text
        seen = text.mask.new_ones(before.shape[:2])
        return States(torch.cat([before.to(text.values.dtype), text.values], 1), torch.cat([seen, text.mask], 1))

    def forward(
        self,
        caps: Tensor,
        cmasks: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
        objective: str | Sequence[str] | None = None,
        **batch: Any,
    ) -> dict[str, Any]:
        """Score the words that training tells. ``objective``, the same of all items, says which:

        ===============  =============================================================================================
        ``words``        those that ``text_label`` (B, X) names: the answers of questions at their ``[MASK]``, or
                         masked words (default)
        ``captioning``   the same, but words see only what is before them in the text
        ``pretraining``  the same as ``words``; and at the last position, a ``[MASK]``, whether text and video belong
                         together: each video with its own text and others, ``model.matching_texts`` in all
        ``retrieval``    whether they do, of every video and every text of the batch; texts are of the same video where
                         ``video_key`` (B,) is the same
        ``options``      whether they do, of every video and its own texts ``caps`` (B, O, X) or (B * O, X), of which
                         ``answers`` (B,) says the right one and ``option_mask`` (B, O) those that there are
        ===============  =============================================================================================

        Args:
            caps: int64 (B, X), but for ``options``; masked.
            cmasks: as caps, true where a position may be seen.
            vfeats: frames (B, T, 3, S, S).
            vmasks: bool (B, T).
            objective: of :data:`mmpt.models.lavender_batches.OBJECTIVES`.
            batch: what the table names; ``prompts`` or ``task_ids`` as :meth:`encode_text`; in pre-training
                ``negatives`` int64 (B, O - 1), the rows of the texts that each video is compared with, by default
                those of the next rows. Texts of the same video by ``video_key`` belong to it there, too.

        Returns, scores over words being put off in training (:class:`~mmpt.modules.vocabulary_loss.VocabularyScores`):
            ``logits`` float32 (n, V), and, where the batch has none, ``text_label`` int64 (n,), the words that they
            should be. In pre-training also ``match_logits`` (B * O, V) and ``match_label`` int64 (B * O,), video by
            video, its own text first, and ``match_scores`` (B, O), "true" over "false", to tell how many are right.

        Raises:
            DataError: if the batch lacks what its objective needs.
        """
        kind = objective_of(objective)
        if kind == "options":
            logits, label = self.match_options(caps, cmasks, vfeats, vmasks, batch)
            return {"logits": logits, "text_label": label}
        video, text = self.encode_video(vfeats, vmasks), self.encode_text(caps, cmasks, **pretext_of(batch))
        if kind == "retrieval":
            logits, label = self.match_all(video, text, batch.get("video_key"))
            return {"logits": logits, "text_label": label}
        labels = batch.get("text_label")
        if labels is None:
            raise DataError(f"a batch of objective {kind!r} has no text_label: there is nothing to tell")
        if kind == "pretraining":
            return self.pretrain(video, text, labels, batch.get("negatives"), batch.get("video_key"))
        return {"logits": self.tell_words(video, text, labels, from_left=kind == "captioning")}

    def option_scores(
        self,
        caps: Tensor,
        cmasks: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
        objective: str | Sequence[str] | None = None,
        **batch: Any,
    ) -> Tensor:
        """Score the options of multiple-choice questions, float32 (B, O); -inf where there is none.

        In a batch of objective ``options`` each option has its text and its :meth:`score_aligned`; else the text holds
        all of them, and scores are the logits of their numbers at ``answer_position`` (B,). ``option_mask`` bool
        (B, O) says which there are.

        Raises:
            DataError: if the batch lacks what is needed.
        """
        mask = batch.get("option_mask")
        if objective_of(objective) == "options":
            self.check_texts(caps)
            video, text = self.pair_with_options(caps, cmasks, vfeats, vmasks, batch)
            scores = self.score_aligned(text, video).view(len(vfeats), -1)
        elif mask is None:
            raise DataError("a batch of questions has no option_mask: nothing says how many options there are")
        else:
            numbers = self.word_ids([str(number) for number in range(mask.shape[-1])], "an option's number")
            states = self._states_of_answers(caps, cmasks, vfeats, vmasks, batch)
            scores = self.head.score(self.head.transform(states), torch.tensor(numbers, device=states.device))
        return hide_missing_options(scores, mask)

    def answer_scores(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **batch: Any) -> Tensor:
        """Score every word piece as the answer of a question, float32 (B, V), at ``answer_position`` (B,)."""
        return self.head(self._states_of_answers(caps, cmasks, vfeats, vmasks, batch))

    def _states_of_answers(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, batch: Mapping[str, Any]
    ) -> Tensor:
        """Return the states (B, H) of the ``[MASK]`` that the answers stand for."""
        position = batch.get("answer_position")
        if position is None:
            raise DataError("a batch of questions has no answer_position: dataset.aligner must be one of LAVENDER's")
        text = self.encode_text(caps, cmasks, **pretext_of(batch))
        video = self.encode_video(vfeats, vmasks)
        length = video.values.shape[1] + text.values.shape[1]
        # Without a place for the answer (its blank was cut off) any will do: the item counts as wrong.
        first = places_at(-caps.shape[1], len(caps), caps, length)
        return self.fuse(video, text, places=first + position.view(-1).clamp(min=0)).last_hidden_state
