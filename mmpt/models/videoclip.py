"""VideoCLIP (Xu et al., EMNLP 2021, arXiv:2109.14084): separate towers for video and text, compared by dot product."""

import dataclasses
from typing import Any, ClassVar

from omegaconf import DictConfig
from torch import Tensor, nn

from mmpt.models.fusion import (
    EncoderOptions,
    FusionModel,
    SequenceOptions,
    all_pack,
    fusion_bert_config,
    load_pretrained_encoders,
    tiny_fusion_config,
)
from mmpt.modules.bert import BertModel
from mmpt.utils.errors import ConfigError
from mmpt.utils.registry import build

__all__ = ["MMFusionSeparate", "SequenceOptions", "TowerOptions"]


@dataclasses.dataclass
class TowerOptions(EncoderOptions):
    """Keys of ``model``, beside those of the family: the classes of the two towers and the depth of the video's."""

    video_encoder_cls: str = "MMBertForEncoder"
    text_encoder_cls: str = "BertModel"
    num_hidden_video_layers: int = 6


class MMFusionSeparate(FusionModel):
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
        super().__init__(config)
        options = self.options
        bert = fusion_bert_config(self.sequence, options, joint=False)
        if options.mm_encoder_cls:
            raise ConfigError(f"model.mm_encoder_cls: {type(self).__name__} has two towers; leave it empty")
        video = dataclasses.replace(bert, num_hidden_layers=options.num_hidden_video_layers)
        self.video_encoder: nn.Module = build("encoder", options.video_encoder_cls, video)
        self.text_encoder: nn.Module = build("encoder", options.text_encoder_cls, bert)
        self.packed = all_pack((self.video_encoder, self.text_encoder))
        load_pretrained_encoders(config, self.sequence, options, (self.video_encoder, self.text_encoder))

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of 32-d towers with 2 and 3 layers, randomly initialised, for tests."""
        return tiny_fusion_config(cls.__name__, model={"num_hidden_video_layers": 2})

    def video_states(self, ids: Tensor, vfeats: Tensor, mask: Tensor) -> Tensor:
        """Encode video sequences by the video tower."""
        return self.video_encoder(ids, vfeats, mask).last_hidden_state

    def text_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode text sequences by the text tower, at BERT's own positions."""
        return self.text_encoder(ids, mask).last_hidden_state
