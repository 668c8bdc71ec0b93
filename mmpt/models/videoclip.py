"""VideoCLIP (Xu et al., EMNLP 2021, arXiv:2109.14084): separate towers for video and text, compared by dot product.

Shapes: B batch, M seconds of video, D feature width, L text positions (``[CLS] [SEP] w.. [SEP] pad..``), H hidden.
"""

import dataclasses
import logging
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from mmpt.models.base import (
    TINY_BERT,
    VideoTextModel,
    encode_by_length,
    masked_mean,
    starts_from_pretrained,
    valid_lengths,
)
from mmpt.modules.bert import BertConfig, BertModel, read_bert_config, read_bert_weights
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_options, section_of
from mmpt.utils.registry import build
from mmpt.utils.tokenizers import special_ids

__all__ = ["MMFusionSeparate", "SequenceOptions", "TowerOptions"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class SequenceOptions:
    """Keys of ``dataset`` that fix the model's sequences. Text blocks have ``max_len - max_video_len`` positions."""

    bert_name: str = "bert-base-uncased"
    use_fast: bool = True
    max_video_len: int = 32
    max_len: int = 96
    split: str | None = None


@dataclasses.dataclass
class TowerOptions:
    """Keys of ``model``.

    ``input_dim`` is the width of the video features. ``init`` is ``pretrained`` (BERT weights from
    ``dataset.bert_name``) or ``random``. ``length_groups`` splits a batch into that many parts of similar length,
    so that short rows are not computed at the length of the longest: the same numbers up to rounding, and about 1.6
    times the training speed for lengths spread as in the published recipe.
    ``gradient_checkpointing`` trades about a third more time for the memory of the activations.
    """

    mm_encoder_cls: str | None = None
    video_encoder_cls: str = "MMBertForEncoder"
    text_encoder_cls: str = "BertModel"
    num_hidden_video_layers: int = 6
    input_dim: int = 512
    init: str = "pretrained"
    length_groups: int = 4
    gradient_checkpointing: bool = False


class MMFusionSeparate(VideoTextModel):
    """Two BERTs, one over video seconds and one over words; each pools the mean over its tokens and final ``[SEP]``.

    Encoder classes are built with a :class:`~mmpt.modules.bert.BertConfig` and offer
    ``load_pretrained(state, source)``; so may a user's own, named ``package.module:Class``.

    Raises:
        ConfigError: if a key has a wrong value; names it.
        CheckpointError: if pretrained weights are asked for and absent or unfit.
    """

    capabilities = frozenset({"retrieval", "frame_states"})
    allow_unexpected = BertModel.allow_unexpected
    config_options: ClassVar[dict[str, type]] = {"dataset": SequenceOptions, "model": TowerOptions}

    def __init__(self, config: Any) -> None:
        super().__init__()
        sequence = read_options(section_of(config, "dataset"), SequenceOptions)
        towers = read_options(section_of(config, "model"), TowerOptions)
        bert = read_bert_config(
            sequence.bert_name,
            input_dim=towers.input_dim,
            max_video_len=sequence.max_video_len,
            gradient_checkpointing=towers.gradient_checkpointing,
        )
        _check(sequence, towers, bert)
        self.sequence = sequence
        self.length_groups = towers.length_groups
        video = dataclasses.replace(bert, num_hidden_layers=towers.num_hidden_video_layers)
        self.video_encoder: nn.Module = build("encoder", towers.video_encoder_cls, video)
        self.text_encoder: nn.Module = build("encoder", towers.text_encoder_cls, bert)
        if starts_from_pretrained(config, towers.init):
            state, source = read_bert_weights(sequence.bert_name)
            for tower in (self.video_encoder, self.text_encoder):
                tower.load_pretrained(state, source)

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of 32-d towers with 2 and 3 layers, randomly initialised, for tests."""
        return OmegaConf.create(
            {
                "dataset": {"bert_name": TINY_BERT, "use_fast": False, "max_video_len": 8, "max_len": 24},
                "model": {"model_cls": "MMFusionSeparate", "num_hidden_video_layers": 2, "init": "random"},
            }
        )

    def forward(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """Encode pairs: caps int64 and cmasks (B, L), vfeats (B, M, D), vmasks (B, M).

        Returns:
            ``pooled_video`` and ``pooled_text``, both (B, H).
        """
        return {
            "pooled_video": self.forward_video(vfeats, vmasks, caps, cmasks),
            "pooled_text": self.forward_text(caps, cmasks),
        }

    def forward_video(
        self, vfeats: Tensor, vmasks: Tensor, caps: Tensor, cmasks: Tensor, output_hidden_states: bool = False
    ) -> Tensor:
        """Pool a video, (B, H), or return all states of its sequence, (B, 1 + M + 1, H).

        ``caps[:, :2]`` gives the ids of ``[CLS]`` and ``[SEP]``, ``cmasks[:, :2]`` whether they take part.
        States of padded seconds are what the encoder computes there; mask them.

        Raises:
            DataError: if the features' width is not ``model.input_dim``, or there are more seconds than
                ``dataset.max_video_len``.
        """
        if vfeats.shape[1] > self.sequence.max_video_len:
            raise DataError(
                f"a video has {vfeats.shape[1]} seconds, but the model takes dataset.max_video_len: "
                f"{self.sequence.max_video_len}"
            )
        vmasks, specials = vmasks.bool(), cmasks[:, :2].bool()
        # Whatever lies under padding, NaN included, must not reach the output.
        vfeats = vfeats.masked_fill(~vmasks[..., None], 0)

        def encode(rows: Tensor | slice, length: int) -> Tensor:
            seconds, ends = vmasks[rows, :length], specials[rows]
            mask = torch.cat([ends[:, :1], seconds, ends[:, 1:]], dim=1)
            states = self.video_encoder(caps[rows, :2], vfeats[rows, :length], mask).last_hidden_state
            return states if output_hidden_states else masked_mean(states[:, 1:], mask[:, 1:])

        if output_hidden_states:
            return encode(slice(None), vfeats.shape[1])
        return encode_by_length(vmasks, self.length_groups, encode)

    def forward_text(self, caps: Tensor, cmasks: Tensor, output_hidden_states: bool = False) -> Tensor:
        """Pool a text, (B, H), or return all states of ``[CLS] w.. [SEP] pad..``, (B, L - 1, H)."""
        # The first [SEP] ends the video part of the joint layout.
        ids = torch.cat([caps[:, :1], caps[:, 2:]], dim=1)
        mask = torch.cat([cmasks[:, :1], cmasks[:, 2:]], dim=1).bool()

        def encode(rows: Tensor | slice, length: int) -> Tensor:
            seen = mask[rows, :length]
            states = self.text_encoder(ids[rows, :length], seen).last_hidden_state
            return states if output_hidden_states else masked_mean(states[:, 1:], seen[:, 1:])

        if output_hidden_states:
            return encode(slice(None), ids.shape[1])
        return encode_by_length(mask, self.length_groups, encode)

    def encode_video(
        self, vfeats: Tensor, vmasks: Tensor, caps: Tensor | None = None, cmasks: Tensor | None = None
    ) -> Tensor:
        """Encode videos alone: (B, M, D) and (B, M) to (B, H). Special ids come from ``caps``, else the tokenizer."""
        return self.forward_video(vfeats, vmasks, *self._specials(vfeats, caps, cmasks))

    def encode_text(self, caps: Tensor, cmasks: Tensor) -> Tensor:
        """Encode texts alone: (B, L) and (B, L) to (B, H)."""
        return self.forward_text(caps, cmasks)

    def encode_video_frames(
        self, vfeats: Tensor, vmasks: Tensor, caps: Tensor | None = None, cmasks: Tensor | None = None
    ) -> Tensor:
        """Encode every second in the context of its video: (B, M, H); padded seconds are zeros."""
        length = int(valid_lengths(vmasks.bool()).max()) if len(vmasks) else 0
        states = self.forward_video(
            vfeats[:, :length], vmasks[:, :length], *self._specials(vfeats, caps, cmasks), output_hidden_states=True
        )[:, 1 : 1 + length]
        states = states.masked_fill(~vmasks[:, :length, None].bool(), 0)
        return nn.functional.pad(states, (0, 0, 0, vmasks.shape[1] - length))

    def _specials(self, vfeats: Tensor, caps: Tensor | None, cmasks: Tensor | None) -> tuple[Tensor, Tensor]:
        if caps is None:
            ids = special_ids(self.sequence.bert_name, self.sequence.use_fast)
            caps = torch.tensor([[ids.cls, ids.sep]], device=vfeats.device).expand(len(vfeats), 2)
        if cmasks is None:
            cmasks = torch.ones_like(caps[:, :2], dtype=torch.bool)
        return caps, cmasks


def _check(sequence: SequenceOptions, towers: TowerOptions, bert: BertConfig) -> None:
    if towers.mm_encoder_cls:
        raise ConfigError("model.mm_encoder_cls: MMFusionSeparate has two towers; leave it empty")
    if towers.init not in ("pretrained", "random"):
        raise ConfigError(f"model.init: {towers.init!r} is neither 'pretrained' nor 'random'")
    for name in ("num_hidden_video_layers", "input_dim", "length_groups"):
        if getattr(towers, name) < 1:
            raise ConfigError(f"model.{name}: must be at least 1, not {getattr(towers, name)}")
    text_length = sequence.max_len - sequence.max_video_len
    if sequence.max_video_len < 1 or text_length < 3:
        raise ConfigError(
            f"dataset.max_len: {sequence.max_len} leaves no room for text after dataset.max_video_len: "
            f"{sequence.max_video_len} seconds of video"
        )
    needed = max(sequence.max_video_len + 2, text_length - 1)
    if needed > bert.max_position_embeddings:
        raise ConfigError(
            f"dataset.max_video_len, dataset.max_len: need {needed} positions, but {sequence.bert_name} has "
            f"{bert.max_position_embeddings}"
        )
