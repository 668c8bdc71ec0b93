"""One encoder for video and text, over either half or over the joint sequence: what VLM and its variants share.

The joint sequence is ``[CLS] v1 .. vM [SEP] w1 .. wn [SEP] pad..``.

Shapes: B batch, M seconds of video, D feature width, L text positions, S = M + L, H hidden.
"""

import dataclasses
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mmpt.models.base import encode_by_length, longest, valid_lengths
from mmpt.models.fusion import (
    EncoderOptions,
    FusionModel,
    SequenceOptions,
    all_pack,
    fusion_bert_config,
    load_pretrained_encoders,
    tiny_fusion_config,
)
from mmpt.modules.attention_masks import isolated_mask, isolated_segments, joint_mask, joint_token_types
from mmpt.modules.bert import BertModel, Mask
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.registry import build

__all__ = ["IsolationOptions", "SingleEncoderModel", "SingleEncoderOptions", "states_of_caps"]

# The published weights hold them, its forward pass does not use them.
_SEGMENTS = "mm_encoder.bert.embeddings.seg_embeddings.*"


@dataclasses.dataclass
class SingleEncoderOptions(EncoderOptions):
    """Keys of ``model``, beside those of the family. ``use_seg_emb`` adds VLM's (unused) table of segments."""

    use_seg_emb: bool = False


@dataclasses.dataclass
class IsolationOptions(SequenceOptions):
    """Keys of ``dataset``. In the first ``num_iso_layer`` layers video and text do not see each other."""

    num_iso_layer: int | None = None


class SingleEncoderModel(FusionModel):
    """A model with one encoder, ``mm_encoder``, for both halves.

    ``encoder_cls`` is the encoder of configs that name none in ``model.mm_encoder_cls``. Encoder classes are built
    with a :class:`~mmpt.modules.bert.BertConfig` and called as
    :class:`~mmpt.modules.mmbert.MMBertForEncoder`; so may a user's own, named ``package.module:Class``.

    Raises:
        ConfigError: if a key has a wrong value; names it.
        CheckpointError: if pretrained weights are asked for and absent or unfit.
    """

    encoder_cls: ClassVar[str] = "MMBertForEncoder"
    allow_unexpected: ClassVar[tuple[str, ...]] = (*BertModel.allow_unexpected, _SEGMENTS)
    allow_missing = (_SEGMENTS,)
    config_options: ClassVar[dict[str, type]] = {"dataset": SequenceOptions, "model": SingleEncoderOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        sequence, options = self.sequence, self.options
        bert = fusion_bert_config(sequence, options, joint=True)
        self.num_layers = bert.num_hidden_layers
        self.num_iso_layer: int | None = getattr(sequence, "num_iso_layer", None)
        if self.num_iso_layer is not None and not 1 <= self.num_iso_layer <= self.num_layers:
            raise ConfigError(
                f"dataset.num_iso_layer: {self.num_iso_layer}, but dataset.bert_name: {sequence.bert_name} has "
                f"{self.num_layers} layers: must be 1 to {self.num_layers}. Configs written for BERT-base say 12"
            )
        self.mm_encoder: nn.Module = build("encoder", self.encoder_name(options.mm_encoder_cls), bert)
        self.packed = all_pack((self.mm_encoder,))
        load_pretrained_encoders(config, sequence, options, (self.mm_encoder,))

    def encoder_name(self, named: str | None) -> str:
        """Return the registered name of the encoder to build; ``named`` is ``model.mm_encoder_cls``."""
        return named or self.encoder_cls

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 32-d encoder with 3 layers, randomly initialised, for tests."""
        return tiny_fusion_config(cls.__name__)

    def video_states(self, ids: Tensor, vfeats: Tensor, mask: Tensor) -> Tensor:
        """Encode video sequences without text."""
        return self.mm_encoder(ids, vfeats, mask, num_layers=self.num_iso_layer).last_hidden_state

    def text_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode text sequences without video, at the positions and types that they have in the joint sequence."""
        types = torch.ones_like(ids)
        types[:, 0] = 0
        return self.mm_encoder(ids, None, mask, types, num_layers=self.num_iso_layer).last_hidden_state

    def joint_states(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Encode joint sequences by all layers.

        Args:
            caps: int64 (B, L), with ``cmasks``.
            vfeats: (B, M, D), with ``vmasks``.
            attention_mask: (B, S, S), true where a row may see a column, in place of the mask of the model
                (:meth:`layer_masks`). It must hide padding.

        Returns:
            (B, S, H): ``[CLS]``, the video, and the text block from its first ``[SEP]`` on. States of padding are
            zeros where the encoder packs, else arbitrary, but finite.

        Raises:
            DataError: if there are not as many videos as texts, or as :meth:`FusionModel.forward_video`.
        """
        if len(caps) != len(vfeats):
            raise DataError(f"{len(vfeats)} videos and {len(caps)} texts cannot be encoded jointly: give pairs")
        vfeats, vmasks = self.clean_video(vfeats, vmasks)
        cmasks = cmasks.bool()
        seconds, words = vmasks.shape[1], caps.shape[1]
        if self.packed and attention_mask is None and self.grad_cache_rows is None:
            types = joint_token_types(seconds, words, caps.device)
            return self.mm_encoder(caps, vfeats, self.packed_masks(vmasks, cmasks), types).last_hidden_state
        position = torch.arange(seconds + words, device=caps.device)
        filled = position < (valid_lengths(vmasks) + valid_lengths(cmasks))[:, None]

        def encode(rows: Tensor | slice, _: int) -> Tensor:
            # Only as far as this part is filled; positions do not depend on how many seconds there are.
            filled_seconds, filled_words = longest(vmasks[rows]), max(longest(cmasks[rows]), 2)
            kept = torch.cat([position[: 1 + filled_seconds], position[1 + seconds : seconds + filled_words]])
            if attention_mask is None:
                masks = self.layer_masks(vmasks[rows, :filled_seconds], cmasks[rows, :filled_words])
            else:
                masks = attention_mask[rows][:, kept][:, :, kept]
            types = joint_token_types(filled_seconds, filled_words, caps.device)
            output = self.mm_encoder(caps[rows, :filled_words], vfeats[rows, :filled_seconds], masks, types)
            states = output.last_hidden_state
            return states.new_zeros(len(states), seconds + words, states.shape[2]).index_copy(1, kept, states)

        return encode_by_length(filled, self.length_groups, encode, self.grad_cache_rows)

    def packed_masks(self, vmasks: Tensor, cmasks: Tensor) -> Mask | list[Mask]:
        """Return what :meth:`layer_masks` does, for an encoder that packs: no row per query."""
        joint: Mask = joint_mask(vmasks, cmasks)
        if self.num_iso_layer is None:
            return joint
        isolated: Mask = isolated_segments(vmasks, cmasks)
        return [isolated] * self.num_iso_layer + [joint] * (self.num_layers - self.num_iso_layer)

    def layer_masks(self, vmasks: Tensor, cmasks: Tensor) -> Tensor | list[Tensor]:
        """Return the mask of the joint sequence, (B, S), or one per layer; layers share the two tensors there are."""
        joint = joint_mask(vmasks, cmasks)
        if self.num_iso_layer is None:
            return joint
        isolated = isolated_mask(vmasks, cmasks)
        return [isolated] * self.num_iso_layer + [joint] * (self.num_layers - self.num_iso_layer)


def states_of_caps(states: Tensor, seconds: int) -> Tensor:
    """Return the states that stand for ``caps``, (B, L, H): of the joint (B, S, H), all but the video's ``seconds``."""
    return torch.cat([states[:, :1], states[:, 1 + seconds :]], dim=1)
