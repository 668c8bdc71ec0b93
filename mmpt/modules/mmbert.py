"""BERT over a sequence of video seconds and words: the encoders of VideoCLIP and VLM.

Sequence: ``[CLS] v1 .. vV [SEP] w1 ..``; one video token is one second of features.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.modules.bert import BertConfig, BertEmbeddings, BertModel, Mask, pack_ids
from mmpt.modules.linear import Linear
from mmpt.modules.packing import Packing, packing_of
from mmpt.modules.transformer import EncoderOutput, KeyValueCache, activation, initialise
from mmpt.utils.errors import DataError

__all__ = ["MMBertEmbeddings", "MMBertForEncoder", "MMBertModel", "VideoTokenMLP"]

SEGMENTS = 256


class VideoTokenMLP(nn.Module):
    """Project video features to token embeddings: linear, activation, LayerNorm, linear."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.linear1 = Linear(config.input_dim, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size)
        self.activation = activation(config.hidden_act)
        self.linear2 = Linear(config.hidden_size, config.hidden_size)

    def forward(self, features: Tensor) -> Tensor:
        """Project (B, V, D) of any float dtype to (B, V, H).

        Raises:
            DataError: if D is not the width that the model was built for.
        """
        if features.shape[-1] != self.linear1.in_features:
            raise DataError(
                f"video features have width {features.shape[-1]}, expected model.input_dim={self.linear1.in_features}: "
                f"set model.input_dim={features.shape[-1]}, or use the features that the model was trained on"
            )
        hidden = self.linear1(features.to(self.linear1.weight.dtype))
        return self.linear2(self.LayerNorm(self.activation(hidden)))


class MMBertEmbeddings(BertEmbeddings):
    """BERT's embeddings with video tokens between the first token and the rest.

    Text positions do not depend on the number of video tokens: the first ``max_video_len + 1`` positions belong to
    the first token and the video, whatever part of them is used.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.max_video_len = config.max_video_len
        if config.use_seg_emb:
            # Part of VLM's published weights; its forward pass does not use them.
            self.seg_embeddings = nn.Embedding(SEGMENTS, config.hidden_size)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        video_embeddings: Tensor | None = None,
        *,
        position_ids: Tensor | None = None,
        packing: Packing | None = None,
        video_length: int | None = None,
    ) -> Tensor:
        """Embed ``input_ids`` (B, L) and projected video tokens (B, V, H), where given. Returns (B, V + L, H).

        With video the positions are 0..V, then max_video_len+1 .. max_video_len+L-1; without, they are
        0, then max_video_len+2 .. max_video_len+L; ``position_ids``, (V + L,) or (B, V + L), replaces them.
        ``token_type_ids`` is (B, V + L).
        With a packing of (B, V + L) the result is its (N, H), and video tokens are the valid ones alone, in its order,
        of ``video_length`` V.
        """
        if packing is not None:
            return self._packed(packing, input_ids, token_type_ids, video_embeddings, position_ids, video_length)
        words = self.word_embeddings(input_ids)
        if video_embeddings is not None:
            words = torch.cat([words[:, :1], video_embeddings.to(words.dtype), words[:, 1:]], dim=1)
        if position_ids is None:
            position_ids = self._positions(input_ids, None if video_embeddings is None else video_embeddings.shape[1])
        return self.combine(words, position_ids, token_type_ids)

    def _packed(
        self,
        packing: Packing,
        input_ids: Tensor,
        token_type_ids: Tensor | None,
        video_embeddings: Tensor | None,
        position_ids: Tensor | None,
        video_length: int | None,
    ) -> Tensor:
        if position_ids is None:
            position_ids = self._positions(input_ids, video_length)
        if video_length:
            # The video's places hold padding until its tokens come there.
            places = input_ids.new_zeros(len(input_ids), video_length)
            input_ids = torch.cat([input_ids[:, :1], places, input_ids[:, 1:]], dim=1)
        ids, positions, types = pack_ids(packing, input_ids, position_ids, token_type_ids)
        words = self.word_embeddings(ids)
        if video_embeddings is not None and video_length:
            numbers, _ = packing.between(1, 1 + video_length)
            words = words.index_copy(0, numbers, video_embeddings.to(words.dtype))
        return self.combine(words, positions, types)

    def _positions(self, input_ids: Tensor, seconds: int | None) -> Tensor:
        if seconds is None:
            first, rest = 1, self.max_video_len + 2
        else:
            first, rest = 1 + seconds, self.max_video_len + 1
        device = input_ids.device
        return torch.cat(
            [torch.arange(first, device=device), torch.arange(rest, rest + input_ids.shape[1] - 1, device=device)]
        )


class MMBertModel(BertModel):
    """BERT with :class:`MMBertEmbeddings`. Per-layer masks (isolated layers) are a sequence of masks.

    Called with ``video_embeddings`` (B, V, H), it encodes them after the first of the (B, L) tokens.
    """

    def build_embeddings(self, config: BertConfig) -> nn.Module:
        """Return embeddings that take video tokens."""
        return MMBertEmbeddings(config)


class MMBertForEncoder(nn.Module):
    """Projection of video features and :class:`MMBertModel`: VideoCLIP's video tower."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.videomlp = VideoTokenMLP(config)
        self.bert = MMBertModel(config)
        initialise(self.videomlp, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        video_features: Tensor | None,
        attention_mask: Mask | Sequence[Mask] | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        need_attention: bool = False,
        num_layers: int | None = None,
        cache: KeyValueCache | None = None,
        position_ids: Tensor | None = None,
    ) -> EncoderOutput:
        """Encode token ids (B, L) and video features (B, V, D), or None, as one sequence of V + L.

        The rest are those of :meth:`BertModel.forward` and :meth:`MMBertEmbeddings.forward`. Packed, seconds that the
        mask hides are not projected either.
        """
        attention_mask = self.bert.pack(attention_mask, output_hidden_states or need_attention or cache is not None)
        packing = packing_of(attention_mask)
        video: dict[str, Any] = {}
        if video_features is not None and packing is not None:
            seconds = video_features.shape[1]
            _, places = packing.between(1, 1 + seconds)
            video = {"video_length": seconds, "video_embeddings": self.videomlp(video_features.flatten(0, 1)[places])}
        elif video_features is not None:
            video = {"video_embeddings": self.videomlp(video_features)}
        return self.bert(
            input_ids,
            attention_mask,
            token_type_ids,
            output_hidden_states,
            need_attention,
            num_layers,
            cache,
            position_ids=position_ids,
            **video,
        )

    def load_pretrained(self, state: dict[str, Tensor], source: str) -> None:
        """Load a BERT's weights into the encoder; the projection keeps its initialisation.

        Raises:
            CheckpointError: as :meth:`BertModel.load_pretrained`.
        """
        self.bert.load_pretrained(state, source)
