"""The baseline that LAVENDER (arXiv:2206.07160) is compared with: one model of many tasks, with a head for each.

Shapes: B batch, T frames, S pixels of a side, X text positions, O options, C outputs of a head.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from omegaconf import DictConfig
from torch import Tensor

from mmpt.models.cross_modal import CrossModalModel, FrameSequenceOptions, States, tiny_cross_modal_config
from mmpt.models.lavender_base import LAVENDERBase
from mmpt.models.lavender_batches import objective_of, pretext_of
from mmpt.models.lavender_captioning import LAVENDERCaptioning, LAVENDERCaptioningOptions
from mmpt.models.violet import VIOLETMultipleChoice
from mmpt.modules.pair_head import MatchingHead
from mmpt.utils.errors import ConfigError, DataError, nearest
from mmpt.utils.options import section_of

__all__ = ["HEAD_TYPES", "HeadOptions", "LAVENDERMultiHead", "LAVENDERMultiHeadOptions"]

#: What a head does: score pairs, score each option's text, choose among options in one text, choose an answer.
HEAD_TYPES = ("retrieval", "retmc", "qamc", "qaoe")


@dataclasses.dataclass
class HeadOptions:
    """One head: its ``type``, of :data:`HEAD_TYPES`, and ``outputs``, the options of qamc or the answers of qaoe."""

    type: str = "retrieval"
    outputs: int = 1


@dataclasses.dataclass
class LAVENDERMultiHeadOptions(LAVENDERCaptioningOptions):
    """Keys of ``model``.

    Attributes:
        heads: name of a member of the training -> its head; a member that writes captions has none.
        member: in a test, the member whose head is used.
    """

    heads: dict[str, HeadOptions] = dataclasses.field(default_factory=dict)
    member: str | None = None


class LAVENDERMultiHead(LAVENDERBase, LAVENDERCaptioning, VIOLETMultipleChoice):
    """Heads on the fused state of the text's ``[CLS]``, one for each member of a multi-task training; no pretext.

    Captions are told by the head over the vocabulary that all members share. ``member`` names the one whose head
    scores: that of the last batch, or ``model.member``.

    Raises:
        ConfigError: if a head cannot be; names it.
    """

    capabilities = frozenset({"fusion", "multiple_choice", "answering", "captioning"})
    new_heads: ClassVar[tuple[str, ...]] = ("fc.*", "fc_*_*.*", "enc_img.emb_*", "enc_img.norm.*")
    allow_unexpected = (*CrossModalModel.allow_unexpected, "emb_task", "fc_*_*.*")
    config_options: ClassVar[dict[str, type]] = {"dataset": FrameSequenceOptions, "model": LAVENDERMultiHeadOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.member: str | None = self.options.member
        heads: dict[str, HeadOptions] = self.options.heads
        members = list((section_of(config, "dataset") or {}).get("members") or heads)
        for name, head in heads.items():
            if name not in members:
                raise ConfigError(f"model.heads.{name}: dataset.members has no such member.{nearest(name, members)}")
            _check_head(name, head)
            self.add_module(_module_name(name, head), MatchingHead(self.hidden_size, head.outputs))

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 32-d encoder of small frames with a head of each type, for tests."""
        heads = {
            "clips": {"type": "retrieval"},
            "texts": {"type": "retmc"},
            "choice-qa": {"type": "qamc", "outputs": 3},
            "open-qa": {"type": "qaoe", "outputs": 5},
        }
        return tiny_cross_modal_config(cls.__name__, model={"heads": heads, "member": "clips"})

    def encode_text(self, caps: Tensor, cmasks: Tensor, **pretext: Tensor | None) -> States:
        """Embed token ids (B, X), with masks.

        Raises:
            ConfigError: if there is a prompt or a task token.
        """
        _refuse(pretext)
        return super().encode_text(caps, cmasks)

    def classify(self, text: States, video: States) -> Tensor:
        """Fuse row i of the texts with row i of the videos: the output (N, C) of the head of ``member``."""
        return self._head()[1](self.fuse_at(video, text, video.values.shape[1]))

    @property
    def joined_options(self) -> str | None:
        """The config key that says how many options one text holds, of type qamc; None: each option has its own."""
        return f"model.heads.{self.member}.outputs" if self._head()[0].type == "qamc" else None

    def answer_scores(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **kwargs: Any) -> Tensor:
        """Score the answers to the question about each video, (B, C)."""
        return self.classify(self.encode_text(caps, cmasks), self.encode_video(vfeats, vmasks))

    def forward(  # type: ignore[override]
        self,
        caps: Tensor,
        cmasks: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
        member: Sequence[str] | None = None,
        answers: Tensor | None = None,
        **batch: Any,
    ) -> dict[str, Any]:
        """Compute what the loss of a batch of one member needs.

        Args:
            caps: int64 (B, X), of type retmc (B, O, X) or (B * O, X), with ``cmasks``.
            vfeats: frames (B, T, 3, S, S), with ``vmasks``.
            member: the name of the member, once per item; None: as before.
            answers: int64 (B,), the right option or answer, -100 where it is not listed.
            batch: ``option_mask``; of captions ``text_label`` int64 (B, X), with ``objective`` captioning.

        Returns:
            Retrieval: ``pair_scores`` (texts, videos). Questions: ``logits`` (B, O) or (B, C) with ``targets``.
            Captions: ``logits`` of the masked words (n, V).

        Raises:
            DataError: if the batch lacks what its head needs.
            ConfigError: if the member has no head, or a text a pretext.
        """
        _refuse(pretext_of(batch))
        if member is not None:
            self.member = member[0]
        if objective_of(batch.get("objective")) == "captioning":
            labels = batch.get("text_label")
            if labels is None:
                raise DataError("a batch of captions has no text_label: there is nothing to tell")
            text, video = self.encode_text(caps, cmasks), self.encode_video(vfeats, vmasks)
            return {"logits": self.tell_words(video, text, labels, from_left=True)}
        kind = self._head()[0].type
        if kind == "retrieval":
            return {"pair_scores": self.score_pairs(self.encode_text(caps, cmasks), self.encode_video(vfeats, vmasks))}
        if answers is None:
            raise DataError(f"a batch of member {self.member!r}, of type {kind}, has no answers")
        score = self.answer_scores if kind == "qaoe" else self.option_scores
        return {"logits": score(caps, cmasks, vfeats, vmasks, **batch), "targets": answers.reshape(-1)}

    def _head(self) -> tuple[HeadOptions, MatchingHead]:
        """Return what the head of ``member`` is, and itself; ConfigError if there is none."""
        heads: dict[str, HeadOptions] = self.options.heads
        if self.member not in heads:
            if self.member is None:
                raise ConfigError(f"model.member: not set; it names the head to use, of {', '.join(heads)}")
            raise ConfigError(f"model.heads: has none for {self.member!r}.{nearest(self.member, list(heads))}")
        head = heads[self.member]
        module = self.get_submodule(_module_name(self.member, head))
        assert isinstance(module, MatchingHead)
        return head, module


def _refuse(pretext: Mapping[str, Tensor | None]) -> None:
    if any(value is not None for value in pretext.values()):
        raise ConfigError(
            "dataset.prompt, dataset.task_token: LAVENDERMultiHead knows tasks by their heads; unset them"
        )


def _module_name(member: str, head: HeadOptions) -> str:
    """Return the published name of a head."""
    return f"fc_{head.type}_{member}".replace("-", "_").replace(".", "_")


def _check_head(name: str, head: HeadOptions) -> None:
    if head.type not in HEAD_TYPES:
        hint = nearest(head.type, HEAD_TYPES)
        raise ConfigError(f"model.heads.{name}.type: {head.type!r} is none of {', '.join(HEAD_TYPES)}.{hint}")
    least = 2 if head.type in ("qamc", "qaoe") else 1
    if head.outputs < least or (least == 1 and head.outputs != 1):
        raise ConfigError(
            f"model.heads.{name}.outputs: {head.outputs}; a head of type {head.type} has "
            + ("2 or more" if least == 2 else "1")
        )
