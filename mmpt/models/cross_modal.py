"""What VIOLET (arXiv:2111.12681) and LAVENDER (arXiv:2206.07160) share: raw frames and text, fused by one transformer.

The joint sequence is ``frame 1 .. frame T, text``; a frame is its ``[CLS]`` and its patches. Video and text are encoded
apart, the text to embeddings only, and see each other in the transformer ``trsfr``: a score takes a fusion per pair.

Shapes: B batch, T frames, S pixels of a side, P positions of a frame, X text positions, H hidden, L any length.
"""

import abc
import logging
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mmpt.models.base import VideoTextModel, starts_from_pretrained
from mmpt.models.cross_modal_options import (
    CrossModalOptions,
    FrameSequenceOptions,
    check_cross_modal,
    swin_sizes,
    tiny_cross_modal_config,
)
from mmpt.models.cross_modal_tables import fit_tables
from mmpt.modules.bert import BertConfig, BertEmbeddings, read_bert_config, read_bert_weights
from mmpt.modules.frame_encoder import FrameEncoder
from mmpt.modules.lm_head import untied_lm_head
from mmpt.modules.swin_weights import load_swin
from mmpt.modules.transformer import EncoderOutput, TransformerEncoder, initialise
from mmpt.modules.valid_states import places_at, places_of, valid_states
from mmpt.utils.checkpoint import load_into
from mmpt.utils.errors import DataError
from mmpt.utils.options import read_section

__all__ = [
    "CrossModalModel",
    "CrossModalOptions",
    "FrameSequenceOptions",
    "States",
    "TextEmbedder",
    "tiny_cross_modal_config",
]

logger = logging.getLogger(__name__)

# Pairs that are fused at a time where all of many are scored.
_PAIRS_AT_ONCE = 64


class States(NamedTuple):
    """Encoded sequences: ``values`` (B, L, H) and ``mask`` bool (B, L), true where a position may be seen."""

    values: Tensor
    mask: Tensor

    def rows(self, index: Tensor | slice) -> "States":
        """Return the sequences of a slice, of ``index`` bool (B,), or int64 (N,), which may name one several times."""
        if isinstance(index, slice) or index.dtype == torch.bool:
            return States(self.values[index], self.mask[index])
        # Not values[index]: on a CPU its gradient adds the rows of one sequence in whatever order the threads come to
        # them, and a training would not repeat itself.
        return States(self.values.index_select(0, index), self.mask.index_select(0, index))


class TextEmbedder(nn.Module):
    """BERT's embeddings, alone; the layers above them are those of the fusing transformer."""

    def __init__(self, bert: BertConfig) -> None:
        super().__init__()
        self.emb_txt = BertEmbeddings(bert)


class CrossModalModel(VideoTextModel):
    """Frames by Video Swin, text by embeddings, both through one BERT.

    A subclass says what a fused pair scores (:meth:`score_aligned`) and what training computes (``forward``).
    ``frame_order`` and ``with_lm_head`` say whether the published weights have ``emb_odr`` and a language-model head
    ``fc_mtm``, which begins as BERT's and is not tied to the embeddings.

    Raises:
        ConfigError: if a key has a wrong value; names it.
        CheckpointError: if pretrained weights are asked for and absent or unfit.
    """

    capabilities = frozenset({"fusion"})
    reads_frames = True
    frame_order: ClassVar[bool] = False
    with_lm_head: ClassVar[bool] = False
    # Constants: transformers before 4.31 saved the former; the latter follow from the sizes of the windows.
    allow_unexpected: ClassVar[tuple[str, ...]] = ("*.position_ids",)
    allow_missing: ClassVar[tuple[str, ...]] = ("*.relative_position_index",)
    config_options: ClassVar[dict[str, type]] = {"dataset": FrameSequenceOptions, "model": CrossModalOptions}

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.sequence: Any = read_section(config, "dataset", self.config_options["dataset"])
        self.options: Any = read_section(config, "model", self.config_options["model"])
        options: Any = self.options
        check_cross_modal(self.sequence, options)
        bert = read_bert_config(self.sequence.bert_name, gradient_checkpointing=options.gradient_checkpointing)
        self.bert = bert
        self.hidden_size = bert.hidden_size
        self.enc_img = FrameEncoder(
            swin_sizes(options),
            bert.hidden_size,
            options.max_frames,
            options.max_patches,
            self.frame_order,
            options.pixel_mean,
            options.pixel_std,
        )
        self.enc_txt = TextEmbedder(bert)
        self.trsfr = TransformerEncoder(bert.transformer())
        for part in (self.enc_txt, self.trsfr):
            initialise(part, bert.initializer_range)
        if self.with_lm_head:
            self.fc_mtm = untied_lm_head(bert)
        if starts_from_pretrained(config, options.init):
            self._load_pretrained()

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 32-d encoder of small frames, randomly initialised, for tests."""
        return tiny_cross_modal_config(cls.__name__)

    def published_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bring the tables of frames and patches of a file's weights to the sizes of this model."""
        return fit_tables(state, self.state_dict())

    def encode_video(self, vfeats: Tensor, vmasks: Tensor | None = None) -> States:
        """Encode frames, uint8 or floats in [0, 1], (B, T, 3, S, S); ``vmasks`` (B, T) is true where one is real.

        Videos with fewer frames are encoded as if the others were not there.

        Returns:
            States (B, T * P, H); behind the real frames they are zeros.
        """
        if vmasks is None:
            vmasks = torch.ones(vfeats.shape[:2], dtype=torch.bool, device=vfeats.device)
        vmasks = vmasks.bool()
        positions = self.enc_img.positions(*vfeats.shape[-2:])
        counts = vmasks.sum(1)
        real = torch.arange(vmasks.shape[1], device=vmasks.device) < counts[:, None]
        mask = real.repeat_interleave(positions, dim=1)
        if bool(vmasks.all()):
            return States(self.enc_img(vfeats), mask)
        # Windows reach over frames, so that an absent one must not be computed at all.
        order = (~vmasks).int().argsort(dim=1, stable=True)
        values = self.enc_img.emb_cls.new_zeros(*mask.shape, self.hidden_size)
        for count in counts.unique().tolist():
            if count:
                rows = (counts == count).nonzero()[:, 0]
                encoded = self.enc_img(vfeats[rows[:, None], order[rows, :count]])
                padded = nn.functional.pad(encoded, (0, 0, 0, values.shape[1] - encoded.shape[1]))
                values = values.to(padded.dtype).index_copy(0, rows, padded)
        return States(values, mask)

    def encode_text(self, caps: Tensor, cmasks: Tensor, **pretext: Tensor | None) -> States:
        """Embed token ids (B, X), with masks; ``pretext`` is for systems that put something before a text."""
        return States(self.enc_txt.emb_txt(caps), cmasks.bool())

    def fuse(
        self,
        video: States,
        text: States,
        causal_text: int | None = None,
        need_attention: bool = False,
        places: Tensor | None = None,
    ) -> EncoderOutput:
        """Encode row i of the video together with row i of the text.

        Args:
            video: (B, Lv, H).
            text: (B, Lt, H); it follows the video.
            causal_text: so many of the last text positions are generated: they see the video, what stands before
                them, and each other from left to right, padding included; nothing else sees them.
            need_attention: whether to return the attention maps too.
            places: int64 (n,), which of the B * (Lv + Lt) positions are wanted; None: all.

        Returns:
            ``last_hidden_state`` (B, Lv + Lt, H), or (n, H), where those of padding are arbitrary but finite.
        """
        if len(video.values) != len(text.values):
            raise DataError(f"{len(video.values)} videos and {len(text.values)} texts cannot be fused: give pairs")
        values = torch.cat([video.values, text.values.to(video.values.dtype)], dim=1)
        mask = torch.cat([video.mask, text.mask], dim=1)
        if causal_text:
            mask = _seen_by_generated(mask, causal_text)
        if need_attention:
            return self.trsfr(values, mask, need_attention=True)
        return EncoderOutput(valid_states(self.trsfr, values, mask, places))

    def fuse_at(self, video: States, text: States, position: int) -> Tensor:
        """Encode row i of the video together with row i of the text; return the states at one position, (B, H)."""
        length = video.values.shape[1] + text.values.shape[1]
        return self.fuse(video, text, places=places_at(position, len(text.values), text.values, length))[0]

    def check_texts(self, caps: Tensor) -> None:
        """Refuse token ids (.., X) in a layout that pairs cannot be scored in; here none are refused."""

    def fuse_candidates(
        self, video: States, text: States, negatives: Tensor, wanted: Sequence[Tensor], position: int
    ) -> tuple[list[Tensor], Tensor]:
        """Fuse each video with its own text and with others.

        Args:
            video: (B, Lv, H).
            text: (B, Lt, H); text i is of video i.
            negatives: int64 (B, O - 1), rows of other texts for each video.
            wanted: masks bool (B, Lv + Lt), of which positions beside its own text states are wanted.
            position: which one's state is wanted beside every text.

        Returns:
            For each of ``wanted`` its states, row by row (n, H); and (B, O, H), the video's own text first.
        """
        rows = torch.arange(len(negatives), device=negatives.device)
        texts = torch.cat([rows[:, None], negatives], dim=1)
        videos = rows.repeat_interleave(texts.shape[1])
        length, options = video.values.shape[1] + text.values.shape[1], texts.shape[1]
        places = [places_of(mask, length, options) for mask in wanted]
        places.append(places_at(position, texts.numel(), text.values, length))
        fused = self.fuse(video.rows(videos), text.rows(texts.flatten()), places=torch.cat(places))[0]
        *told, every = fused.split([len(part) for part in places])
        return told, every.unflatten(0, texts.shape)

    @abc.abstractmethod
    def score_aligned(self, text: States, video: States) -> Tensor:
        """Score row i of the texts with row i of the videos, (N,); the greater, the better they fit."""

    def score_pairs(self, text: States, video: States) -> Tensor:
        """Score every text with every video, each by a fusion of its own: (Nt, Nv)."""
        texts, videos = len(text.values), len(video.values)
        pairs = torch.cartesian_prod(torch.arange(texts), torch.arange(videos)).view(-1, 2)
        pairs = pairs.to(text.values.device)
        scores = [
            self.score_aligned(text.rows(part[:, 0]), video.rows(part[:, 1])) for part in pairs.split(_PAIRS_AT_ONCE)
        ]
        return torch.cat(scores).view(texts, videos)

    def attention_received(self, video: States, text: States) -> Tensor:
        """Return how much every position is attended to: (B, Lv + Lt), summed over layers and all queries.

        The mean over heads; absent frames attend to nothing. VIOLET's attended masking (arXiv:2111.12681, section 3.2)
        chooses positions by it.
        """
        attentions = self.fuse(video, text, need_attention=True).attentions
        assert attentions is not None
        queries = torch.cat([video.mask, torch.ones_like(text.mask)], dim=1)[:, :, None]
        return torch.stack([(maps.mean(1) * queries).sum(1) for maps in attentions]).sum(0)

    def _load_pretrained(self) -> None:
        state, source = read_bert_weights(self.sequence.bert_name)
        for part, prefix in ((self.enc_txt.emb_txt, "embeddings."), (self.trsfr, "encoder.")):
            own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            load_into(part, own, allow_unexpected=("position_ids",), source=source)
        if self.with_lm_head:
            self._begin_lm_head(state, source)
        if self.options.swin_weights:
            load_swin(self.enc_img.swin, self.options.swin_weights)
        else:
            logger.warning("model.swin_weights is not set: Video Swin starts from random weights")

    def _begin_lm_head(self, state: dict[str, Tensor], source: str) -> None:
        prefix = "cls."
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if not own:
            logger.warning("%s: has no language-model head; fc_mtm starts from random weights", source)
            return
        own.setdefault("predictions.decoder.weight", state["embeddings.word_embeddings.weight"])
        own.setdefault("predictions.decoder.bias", own["predictions.bias"])
        load_into(self.fc_mtm, own, source=source)


def _seen_by_generated(mask: Tensor, generated: int) -> Tensor:
    """Return which keys each query sees, bool (B, L, L), where the last positions are generated (B1.1 of LAVENDER)."""
    length = mask.shape[1]
    position = torch.arange(length, device=mask.device)
    is_text = position >= length - generated
    earlier = (position[None] <= position[:, None]) & is_text[:, None] & is_text[None]
    return (mask & ~is_text)[:, None] | earlier[None]
