"""Video captioning with VLM (Xu et al., Findings of ACL 2021, arXiv:2105.09996): text from left to right.

The text block of the joint sequence ``[CLS] v1 .. vM [SEP] [CLS] w1 .. wn`` begins with a second ``[CLS]``; every
position predicts the next word, the last one ``[SEP]``. Video positions see the video alone, so they are encoded once.

Shapes: B batch, M seconds of video, D feature width, L text positions, S = M + L, V words.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from mmpt.models.base import valid_lengths
from mmpt.models.caption_writer import CaptionWriter
from mmpt.models.fusion import SequenceOptions, tiny_fusion_config
from mmpt.models.single_encoder import SingleEncoderModel, SingleEncoderOptions, states_of_caps
from mmpt.modules.attention_masks import text_generation_mask
from mmpt.modules.decoding import DecodingOptions, Hypothesis, decode
from mmpt.modules.masking import IGNORED
from mmpt.utils.errors import ConfigError
from mmpt.utils.tokenizers import special_ids

__all__ = ["PROMPT_LENGTH", "CaptioningOptions", "MMFusionNLG"]

#: ``[CLS] [SEP] [CLS]``: what stands before the first generated word.
PROMPT_LENGTH = 3


@dataclasses.dataclass
class CaptioningOptions(SingleEncoderOptions):
    """Keys of ``model``. ``max_decode_length`` is the greatest length of a text with its three prompt ids and its end.

    It is never more than ``dataset.max_len - dataset.max_video_len - 3``, which is the default.
    """

    max_decode_length: int | None = None


class MMFusionNLG(CaptionWriter, SingleEncoderModel):
    """VLM for captioning.

    Starts from a checkpoint of :class:`~mmpt.models.vlm.MMFusionMTM`, whose head has no bias.

    Raises:
        ConfigError: if a key has a wrong value, or no word fits; names it.
        CheckpointError: if pretrained weights are asked for and absent or unfit.
    """

    capabilities = frozenset({"captioning"})
    encoder_cls = "MMBertForNLG"
    new_heads = ("mm_encoder.cls.predictions.bias", "mm_encoder.cls.predictions.decoder.bias")
    config_options: ClassVar[dict[str, type]] = {"dataset": SequenceOptions, "model": CaptioningOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if not all(hasattr(self.mm_encoder, name) for name in ("begin", "next_word", "next_words")):
            raise ConfigError(
                f"model.mm_encoder_cls: {self.options.mm_encoder_cls} writes no text; use {self.encoder_cls}, or a "
                "class with its methods begin, next_word and next_words"
            )
        room = self.sequence.max_len - self.sequence.max_video_len - 3
        asked = self.options.max_decode_length
        #: Most tokens that are generated, the final ``[SEP]`` included.
        self.max_new_tokens = (room if asked is None else min(asked, room)) - PROMPT_LENGTH
        if self.max_new_tokens < 1:
            raise ConfigError(
                f"model.max_decode_length: {asked} with dataset.max_len - dataset.max_video_len - 3 = {room} leaves "
                f"no room for a word after the {PROMPT_LENGTH} prompt ids"
            )

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 32-d encoder with 3 layers, randomly initialised, for tests."""
        return tiny_fusion_config(cls.__name__)

    def layer_masks(self, vmasks: Tensor, cmasks: Tensor) -> Tensor | list[Tensor]:
        """Return the mask of generation, (B, S, S)."""
        return text_generation_mask(vmasks, cmasks)

    def forward(
        self,
        caps: Tensor,
        cmasks: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
        text_label: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Score the next words of texts: ``logits``, float32 (labelled positions of the batch, in its order, V).

        They are put off in training (:class:`~mmpt.modules.vocabulary_loss.VocabularyScores`).

        Args:
            caps: int64 (B, L), ``[CLS] [SEP] [CLS] w1 .. wn pad..``, with ``cmasks``.
            vfeats: (B, M, D), with ``vmasks``.
            text_label: int64 (B, L), the word that follows each position, -100 where it does not matter; by default
                every position from the second ``[CLS]`` to the last word counts.
            attention_mask: (B, S, S), in place of :meth:`layer_masks`.
        """
        states = self.joint_states(caps, cmasks, vfeats, vmasks, attention_mask)
        if text_label is None:
            labelled = cmasks.bool() & (torch.arange(caps.shape[1], device=caps.device) >= PROMPT_LENGTH - 1)
        else:
            labelled = text_label != IGNORED
        text = states_of_caps(states, vmasks.shape[1])
        return {"logits": cast(Any, self.mm_encoder).next_words(text[labelled])}

    def write(  # type: ignore[override]
        self, vfeats: Tensor, vmasks: Tensor, options: DecodingOptions, rngs: Sequence[np.random.Generator]
    ) -> list[Hypothesis]:
        """Write texts of at most ``max_new_tokens`` tokens; each video is encoded once, each word of each text once.

        Args:
            vfeats: (B, M, D).
            vmasks: (B, M), true where a second is real; videos of a batch may differ in length.
            options: how to decode.
            rngs: the randomness of each video.
        """
        vfeats, vmasks = self.clean_video(vfeats, vmasks)
        seconds = int(valid_lengths(vmasks).max())
        ids, specials = self._specials(vfeats, None, None)
        mask = torch.cat([specials[:, :1], vmasks[:, :seconds], specials[:, 1:]], dim=1)
        encoder = cast(Any, self.mm_encoder)
        return decode(
            encoder.next_word,
            encoder.begin(ids, vfeats[:, :seconds], mask),
            ids[:, 0],
            options,
            end=special_ids(self.sequence.bert_name, self.sequence.use_fast).sep,
            max_tokens=self.max_new_tokens,
            prompt=PROMPT_LENGTH,
            rngs=rngs,
        )
