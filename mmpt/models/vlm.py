"""VLM (Xu et al., Findings of ACL 2021, arXiv:2105.09996): one encoder for video and text, and its variants.

In pre-training the encoder sees the joint sequence ``[CLS] v1 .. vM [SEP] w1 .. wn [SEP] pad..`` and tells masked
frames and words; for retrieval the two halves are isolated from each other, and so can be encoded apart.

Shapes: B batch, M seconds of video, D feature width, L text positions, S = M + L, H hidden, V words.
"""

from typing import Any, ClassVar, cast

import torch
from omegaconf import DictConfig
from torch import Tensor

from mmpt.models.fusion import tiny_fusion_config
from mmpt.models.single_encoder import IsolationOptions, SingleEncoderModel, SingleEncoderOptions, states_of_caps
from mmpt.modules.attention_masks import joint_mask
from mmpt.modules.masking import IGNORED
from mmpt.modules.mmbert_heads import MMBertForMFMMLM
from mmpt.utils.errors import ConfigError

__all__ = [
    "IsolationOptions",
    "MMFusionJoint",
    "MMFusionMFMMLM",
    "MMFusionMTM",
    "MMFusionShare",
    "SingleEncoderOptions",
]


class MMFusionShare(SingleEncoderModel):
    """One encoder used for videos and texts in turn."""

    capabilities = frozenset({"retrieval", "frame_states"})


class MMFusionJoint(SingleEncoderModel):
    """VLM for retrieval and question answering.

    With ``dataset.num_iso_layer`` set to k, the output is that of layer k, up to which the halves do not see each
    other (nor ``[CLS]``): they are encoded apart, at the published numbers. Where it is not set, both are encoded in
    one sequence, and scores compare the halves of one pair only.
    """

    capabilities = frozenset({"pairs"})
    encoder_cls = "MMBertForJoint"
    # Training objectives' heads in a checkpoint of VLM's pre-training.
    allow_unexpected = (*SingleEncoderModel.allow_unexpected, "mm_encoder.cls.*")
    config_options: ClassVar[dict[str, type]] = {"dataset": IsolationOptions, "model": SingleEncoderOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if self.num_iso_layer is not None:
            self.capabilities = frozenset({*self.capabilities - {"pairs"}, "retrieval", "frame_states"})

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 32-d encoder with 3 layers, 2 of them isolated, randomly initialised, for tests."""
        return tiny_fusion_config(cls.__name__, dataset={"num_iso_layer": 2})

    def forward(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """Encode videos and texts as :meth:`FusionModel.forward`; pairs only, unless the halves are isolated."""
        if self.num_iso_layer is not None:
            return super().forward(caps, cmasks, vfeats, vmasks)
        states, seconds = self.joint_states(caps, cmasks, vfeats, vmasks), vmasks.shape[1]
        valid = joint_mask(vmasks, cmasks)
        video, text = slice(1, seconds + 2), slice(seconds + 2, None)
        return {
            "pooled_video": self.pool(states[:, video], valid[:, video]),
            "pooled_text": self.pool(states[:, text], valid[:, text]),
        }

    def video_states(self, ids: Tensor, vfeats: Tensor, mask: Tensor) -> Tensor:
        """Encode video sequences without text; ``[CLS]`` is hidden.

        Raises:
            ConfigError: if video and text are not isolated.
        """
        self._check_isolated()
        return super().video_states(ids, vfeats, _without_first(mask))

    def text_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode text sequences without video; ``[CLS]`` is hidden.

        Raises:
            ConfigError: if video and text are not isolated.
        """
        self._check_isolated()
        return super().text_states(ids, _without_first(mask))

    def _check_isolated(self) -> None:
        if self.num_iso_layer is None:
            raise ConfigError(
                f"dataset.num_iso_layer is not set: {type(self).__name__} then sees video and text together, and "
                f"cannot encode one alone. Set it to {self.num_layers}, the layers of dataset.bert_name, or give pairs"
            )


class MMFusionMFMMLM(MMFusionJoint):
    """Pre-training by masked frames and masked tokens, each told among its kind (MFM + MLM).

    Without labels it is :class:`MMFusionJoint`, in training as in evaluation mode. The data leave the features of
    masked frames in place (``dataset.lazy_vfeat_mask``): they are the targets.
    """

    capabilities = frozenset({"pairs", "masked_modeling"})
    encoder_cls = "MMBertForMFMMLM"
    allow_unexpected = SingleEncoderModel.allow_unexpected

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if not hasattr(self.mm_encoder, "masked_scores"):
            name = self.options.mm_encoder_cls
            raise ConfigError(f"model.mm_encoder_cls: {name} has no head for masked frames and tokens (masked_scores)")

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 32-d encoder with 3 layers, randomly initialised, for tests."""
        return tiny_fusion_config(cls.__name__)

    def forward(
        self,
        caps: Tensor,
        cmasks: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
        video_label: Tensor | None = None,
        text_label: Tensor | None = None,
        target_vfeats: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Score masked frames and tokens, or pool where there are no labels.

        Args:
            caps: int64 (B, L), corrupted, with ``cmasks``.
            vfeats: (B, M, D), with ``vmasks``. Masked frames are emptied in a copy.
            video_label: (B, M), true where a frame is masked.
            text_label: int64 (B, L), the ids to tell, -100 elsewhere.
            target_vfeats: (B, M, D), the features before masking, from data that have emptied them in ``vfeats``.
            attention_mask: (B, S, S), in place of the model's own mask.

        Returns:
            ``video_logits`` and ``text_logits``, one row per masked frame or token, in the order of the batch, as the
            encoder's ``masked_scores``: those over words are put off in training. Without labels ``pooled_video`` and
            ``pooled_text``, (B, H).
        """
        if video_label is None and text_label is None:
            return super().forward(caps, cmasks, vfeats, vmasks)
        originals = vfeats if target_vfeats is None else target_vfeats
        vmasks, masked_words = vmasks.bool(), _labelled(text_label, cmasks)
        masked_frames = torch.zeros_like(vmasks) if video_label is None else video_label.bool() & vmasks
        inputs = vfeats.masked_fill(masked_frames[..., None], 0)
        states, seconds = self.joint_states(caps, cmasks, inputs, vmasks, attention_mask), vmasks.shape[1]
        video_logits, text_logits = cast(MMBertForMFMMLM, self.mm_encoder).masked_scores(
            states[:, 1 : 1 + seconds][masked_frames],
            states_of_caps(states, seconds)[masked_words],
            originals[masked_frames],
            vfeats[vmasks & ~masked_frames],
        )
        return {"video_logits": video_logits, "text_logits": text_logits}


class MMFusionMTM(MMFusionMFMMLM):
    """VLM's pre-training: masked frames and tokens, told among frames and words alike (masked token modelling)."""

    encoder_cls = "MMBertForMTM"

    def encoder_name(self, named: str | None) -> str:
        """Return ``MMBertForMTM``, also for public configs, which name the other objective's encoder."""
        return self.encoder_cls if named == MMFusionMFMMLM.encoder_cls else super().encoder_name(named)


def _without_first(mask: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(mask[:, :1]), mask[:, 1:]], dim=1)


def _labelled(text_label: Tensor | None, cmasks: Tensor) -> Tensor:
    return torch.zeros_like(cmasks, dtype=torch.bool) if text_label is None else text_label != IGNORED
