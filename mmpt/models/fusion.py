"""What the models of VideoCLIP and VLM share: sequences, options, and the encoding of either half alone.

Shapes: B batch, M seconds of video, D feature width, L text positions (``[CLS] [SEP] w.. [SEP] pad..``), H hidden.
The two halves are the video sequence ``[CLS] v1 .. vM [SEP]`` and the text sequence ``[CLS] w1 .. wn [SEP] pad..``;
each is pooled to the mean over its tokens and its ``[SEP]``, without ``[CLS]``.
"""

import abc
import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.models.base import (
    TINY_BERT,
    VideoTextModel,
    encode_by_length,
    longest,
    masked_mean,
    starts_from_pretrained,
)
from mmpt.modules.bert import BertConfig, read_bert_config, read_bert_weights
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_section
from mmpt.utils.tokenizers import special_ids

__all__ = [
    "EncoderOptions",
    "FusionModel",
    "SequenceOptions",
    "all_pack",
    "fusion_bert_config",
    "load_pretrained_encoders",
    "tiny_fusion_config",
]


@dataclasses.dataclass
class SequenceOptions:
    """Keys of ``dataset`` that fix the model's sequences. Text blocks have ``max_len - max_video_len`` positions."""

    bert_name: str = "bert-base-uncased"
    use_fast: bool = True
    max_video_len: int = 32
    max_len: int = 96
    split: str | None = None


@dataclasses.dataclass
class EncoderOptions:
    """Keys of ``model`` that every model of this family has.

    ``input_dim`` is the width of the video features; a task fills it in from the data where it is not set.
    ``init`` is ``pretrained`` (BERT weights from ``dataset.bert_name``) or ``random``.
    ``packed`` computes nothing for padding: the valid positions of all rows are one long row to everything but
    attention. The same numbers up to rounding; states of padding are zeros.
    ``length_groups`` is for encoders and masks that are not packed. It splits a batch into that many parts of similar
    length, so that short rows are not computed at the length of the longest.
    ``gradient_checkpointing`` trades about a third more time for the memory of the activations. ``compile`` lets
    torch.compile have the transformer layers in training: true, or the name of its mode.
    ``grad_cache_rows`` encodes at most that many videos, or texts, at a time and computes them again in the backward
    pass: the batch and its negatives are as large as memory has room for vectors, at the memory of a batch of so many.
    ``unit_embeddings`` scales the vectors of videos and texts to length 1, so that scores of the two are cosines, in
    training and wherever the model is used. States of single seconds stay as they are.
    """

    mm_encoder_cls: str | None = None
    input_dim: int | None = None
    init: str = "pretrained"
    packed: bool = True
    length_groups: int = 4
    gradient_checkpointing: bool = False
    compile: bool | str = False
    grad_cache_rows: int | None = None
    unit_embeddings: bool = False


class FusionModel(VideoTextModel):
    """A model that can encode a video alone and a text alone.

    Subclasses say how in :meth:`video_states` and :meth:`text_states`, and which keys they read in
    ``config_options``, in subclasses of :class:`SequenceOptions` (``dataset``) and :class:`EncoderOptions` (``model``).
    Videos and texts need not be equally many.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": SequenceOptions, "model": EncoderOptions}

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.sequence: Any = read_section(config, "dataset", self.config_options["dataset"])
        self.options: Any = read_section(config, "model", self.config_options["model"])
        self.length_groups: int = self.options.length_groups
        self.packed: bool = self.options.packed
        self.grad_cache_rows: int | None = self.options.grad_cache_rows

    @abc.abstractmethod
    def video_states(self, ids: Tensor, vfeats: Tensor, mask: Tensor) -> Tensor:
        """Encode ids of ``[CLS] [SEP]`` (B, 2) and vfeats (B, M, D), with a mask (B, M + 2), to (B, M + 2, H)."""

    @abc.abstractmethod
    def text_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode ids of ``[CLS] w.. [SEP] pad..`` (B, L - 1), with their mask, to (B, L - 1, H)."""

    def forward(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """Encode videos and texts: caps int64 and cmasks (Bt, L), vfeats (Bv, M, D), vmasks (Bv, M).

        Returns:
            ``pooled_video`` (Bv, H) and ``pooled_text`` (Bt, H).
        """
        return {
            "pooled_video": self.forward_video(vfeats, vmasks, caps, cmasks),
            "pooled_text": self.forward_text(caps, cmasks),
        }

    def forward_video(
        self, vfeats: Tensor, vmasks: Tensor, caps: Tensor, cmasks: Tensor, output_hidden_states: bool = False
    ) -> Tensor:
        """Pool a video, (B, H), or return all states of its sequence, (B, 1 + M + 1, H).

        ``caps[:, :2]`` gives the ids of ``[CLS]`` and ``[SEP]``, ``cmasks[:, :2]`` whether they take part; where
        there are not as many texts as videos, the first text's stand for all.
        States of padded seconds are zeros or, where the encoder does not pack, what it computes there; mask them.

        Raises:
            DataError: if the features' width is not ``model.input_dim``, or there are more seconds than
                ``dataset.max_video_len``.
        """
        vfeats, vmasks = self.clean_video(vfeats, vmasks)
        ids, specials = caps[:, :2], cmasks[:, :2].bool()
        if len(ids) != len(vfeats):
            ids, specials = (given[:1].expand(len(vfeats), 2) for given in (ids, specials))

        def encode(rows: Tensor | slice, length: int) -> Tensor:
            seconds, ends = vmasks[rows, :length], specials[rows]
            mask = torch.cat([ends[:, :1], seconds, ends[:, 1:]], dim=1)
            states = self.video_states(ids[rows], vfeats[rows, :length], mask)
            return states if output_hidden_states else self.pool(states[:, 1:], mask[:, 1:])

        if output_hidden_states:
            return encode(slice(None), vfeats.shape[1])
        return encode_by_length(vmasks, self.groups(), encode, self.grad_cache_rows)

    def forward_text(self, caps: Tensor, cmasks: Tensor, output_hidden_states: bool = False) -> Tensor:
        """Pool a text, (B, H), or return all states of ``[CLS] w.. [SEP] pad..``, (B, L - 1, H)."""
        # The first [SEP] ends the video part of the joint layout.
        ids = torch.cat([caps[:, :1], caps[:, 2:]], dim=1)
        mask = torch.cat([cmasks[:, :1], cmasks[:, 2:]], dim=1).bool()

        def encode(rows: Tensor | slice, length: int) -> Tensor:
            seen = mask[rows, :length]
            states = self.text_states(ids[rows, :length], seen)
            return states if output_hidden_states else self.pool(states[:, 1:], seen[:, 1:])

        if output_hidden_states:
            return encode(slice(None), ids.shape[1])
        return encode_by_length(mask, self.groups(), encode, self.grad_cache_rows)

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return the vectors (B, H) of states (B, L, H) where the mask (B, L) holds."""
        pooled = masked_mean(states, mask)
        if not self.options.unit_embeddings:
            return pooled
        return F.normalize(pooled.float(), dim=1).to(pooled.dtype)  # half precision has no such epsilon

    def groups(self) -> int:
        """Return in how many parts of similar length a batch is encoded; 0 where the encoders pack it."""
        return 0 if self.packed else self.length_groups

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
        length = longest(vmasks.bool())
        states = self.forward_video(
            vfeats[:, :length], vmasks[:, :length], *self._specials(vfeats, caps, cmasks), output_hidden_states=True
        )[:, 1 : 1 + length]
        states = states.masked_fill(~vmasks[:, :length, None].bool(), 0)
        return F.pad(states, (0, 0, 0, vmasks.shape[1] - length))

    def clean_video(self, vfeats: Tensor, vmasks: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, M, D) with zeros where the bool mask (B, M), returned too, is false.

        Raises:
            DataError: if there are more seconds than ``dataset.max_video_len``.
        """
        if vfeats.shape[1] > self.sequence.max_video_len:
            raise DataError(
                f"a video has {vfeats.shape[1]} seconds, but the model takes dataset.max_video_len: "
                f"{self.sequence.max_video_len}"
            )
        vmasks = vmasks.bool()
        # Whatever lies under padding, NaN included, must not reach the output.
        return vfeats.masked_fill(~vmasks[..., None], 0), vmasks

    def _specials(self, vfeats: Tensor, caps: Tensor | None, cmasks: Tensor | None) -> tuple[Tensor, Tensor]:
        if caps is None:
            ids = special_ids(self.sequence.bert_name, self.sequence.use_fast)
            caps = torch.tensor([[ids.cls, ids.sep]], device=vfeats.device).expand(len(vfeats), 2)
        if cmasks is None:
            cmasks = torch.ones_like(caps[:, :2], dtype=torch.bool)
        return caps, cmasks


def fusion_bert_config(sequence: SequenceOptions, options: EncoderOptions, joint: bool) -> BertConfig:
    """Read the sizes of ``dataset.bert_name``, with the keys of ``model`` that :class:`BertConfig` has on top.

    Args:
        sequence: keys of ``dataset``.
        options: keys of ``model``; those that are None leave the default.
        joint: whether video and text share one sequence of positions, ``max_len`` of them.

    Raises:
        ConfigError: if a value is out of range, or the sequences do not fit the position table; names the key.
    """
    given = {field.name: getattr(options, field.name, None) for field in dataclasses.fields(BertConfig)}
    given["max_video_len"] = sequence.max_video_len
    bert = read_bert_config(sequence.bert_name, **{name: value for name, value in given.items() if value is not None})
    if options.init not in ("pretrained", "random"):
        raise ConfigError(f"model.init: {options.init!r} is neither 'pretrained' nor 'random'")
    for name in ("num_hidden_video_layers", "input_dim", "length_groups", "grad_cache_rows", "num_labels"):
        value = getattr(options, name, None)
        if value is not None and value < 1:
            raise ConfigError(f"model.{name}: must be at least 1, not {value}")
    text_length = sequence.max_len - sequence.max_video_len
    if sequence.max_video_len < 1 or text_length < 3:
        raise ConfigError(
            f"dataset.max_len: {sequence.max_len} leaves no room for text after dataset.max_video_len: "
            f"{sequence.max_video_len} seconds of video"
        )
    needed = sequence.max_len if joint else max(sequence.max_video_len + 2, text_length - 1)
    if needed > bert.max_position_embeddings:
        raise ConfigError(
            f"dataset.max_video_len, dataset.max_len: need {needed} positions, but {sequence.bert_name} has "
            f"{bert.max_position_embeddings}"
        )
    return bert


def all_pack(encoders: Iterable[nn.Module]) -> bool:
    """Say whether all encoders leave padding out; a user's own may not."""
    return all(getattr(getattr(encoder, "config", None), "packed", False) for encoder in encoders)


def load_pretrained_encoders(
    config: Any, sequence: SequenceOptions, options: EncoderOptions, encoders: Iterable[Any]
) -> None:
    """Load BERT's weights into encoders, unless the config says that other weights replace them anyway.

    Raises:
        CheckpointError: if the weights are absent or unfit.
    """
    if starts_from_pretrained(config, options.init):
        state, source = read_bert_weights(sequence.bert_name)
        for encoder in encoders:
            encoder.load_pretrained(state, source)


def tiny_fusion_config(model_cls: str, **sections: dict[str, Any]) -> DictConfig:
    """Return a config of 32-d encoders with up to 3 layers, randomly initialised, for tests; ``sections`` add keys."""
    dataset = {"bert_name": TINY_BERT, "use_fast": False, "max_video_len": 8, "max_len": 24}
    model = {"model_cls": model_cls, "init": "random"}
    return OmegaConf.merge({"dataset": dataset, "model": model}, sections)  # type: ignore[return-value]
