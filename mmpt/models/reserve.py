"""MERLOT Reserve (Zellers et al. 2022, arXiv:2201.02639): frames, sound and words of a video, told from each other.

Pre-training masks sounds and text spans and contrasts what the joint transformer says at the masks with the vectors of
the sound and span encoders; without frames it tells which frame belongs to each segment's sound or text.

Shapes: B examples, S segments, G groups of segments, A = 3 S sounds, P text spans, L text positions, Q positions of a
joint sequence, D hidden.
"""

import math
from typing import Any, ClassVar, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional as F

from mmpt.losses.candidates import single_or_double
from mmpt.losses.reserve import OBJECTIVES
from mmpt.models.base import Contrast
from mmpt.models.reserve_base import ReserveModel
from mmpt.models.reserve_options import (
    ReservePretrainingOptions,
    ReservePretrainingSequence,
    tiny_reserve_config,
)
from mmpt.modules.reserve_noise import SPLIT_PROBABILITY, split_sources
from mmpt.modules.reserve_sequence import JointInputs
from mmpt.modules.reserve_targets import Pooled, choose_sounds, choose_spans, pool_by_pointer, unit_rows
from mmpt.modules.reserve_tokens import LTOVPOOL, MASK, MASKAUDIO, PAD, SOUNDS, SPAN_SOURCES
from mmpt.modules.reserve_towers import Encoded
from mmpt.modules.valid_states import places_of
from mmpt.utils.errors import ConfigError, DataError

__all__ = ["ReservePretraining"]

_MATCHING = "audio_text_matching"
_MAX_SCALE = math.log(100)

Batch = dict[str, Tensor]


class _Kind(NamedTuple):
    """Sequences of one kind: ``tokens``, ``audio_pointers`` and ``text_pointers``, each int64 (B * n, L)."""

    tokens: Tensor
    audio_pointers: Tensor
    text_pointers: Tensor


class ReservePretraining(ReserveModel):
    """Reserve's pre-training, and its zero-shot use: retrieval by the vectors of videos and short texts."""

    capabilities = frozenset({"retrieval"})
    config_options: ClassVar[dict[str, type]] = {
        "dataset": ReservePretrainingSequence,
        "model": ReservePretrainingOptions,
    }

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        sequence = self.sequence
        if not 1 <= sequence.num_segment_groups <= sequence.num_segments:
            raise ConfigError(f"dataset.num_segment_groups: {sequence.num_segment_groups} is no number of groups")
        if sequence.num_segments % sequence.num_segment_groups:
            raise ConfigError(
                f"dataset.num_segments: {sequence.num_segments} is not a multiple of dataset.num_segment_groups: "
                f"{sequence.num_segment_groups}"
            )
        if not 0 < sequence.mask_rate < 1:
            raise ConfigError(f"dataset.mask_rate: {sequence.mask_rate} is not in (0, 1)")
        if self.options.text_spans < 1:
            raise ConfigError(f"model.text_spans: must be at least 1, not {self.options.text_spans}")

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 64-d model of small frames and four segments, for tests."""
        return tiny_reserve_config(cls.__name__, model={"text_spans": 4})

    def forward(self, vfeats: Tensor, **batch: Any) -> Batch:
        """Encode a batch of pre-training, or of videos and texts.

        Of videos and texts (``caps``, ``cmasks``, ``vmasks``, optionally ``audio_clips``; :meth:`encode_video`,
        :meth:`encode_text`) it returns ``pooled_video`` and ``pooled_text``, (B, D) each. Otherwise:

        Args:
            vfeats: uint8 or float in [0, 1], (B, S, 3, H, W).
            batch: ``audio_clips`` float (B, A, 60, 65); ``text_spans`` int64 (B, P, 15), padded with 0;
                ``video_src_index`` int64 (B, S), the video of each segment; for each of ``text2audio``, ``audio2text``
                (both (B, G, L)), ``audio_text_matching`` (B, 1, L) and optionally ``random_text`` (B, 1, L): the
                tokens, and under ``<kind>_audio_ptr`` and ``<kind>_text_ptr`` what they point to, -1 for nothing, int64
                of the same shape; and the noise of :func:`mmpt.modules.reserve_noise.reserve_noise`, which is drawn
                from torch's generator where the batch has none (no split outside of training).

        Returns:
            For each objective vectors ``<objective>_x`` and ``<objective>_y``, (rows, D), row i belonging to row i:
            ``imgs_to_audio`` (B * S), ``text_to_audio`` (the told sounds of B; ``text_to_audio_y_extra`` are the
            others) and ``stuff_to_span`` (at most ``model.text_spans`` * B), all scaled: a dot product is a logit.
            ``span_sources`` int64, of which of :data:`~mmpt.modules.reserve_tokens.SPAN_SOURCES` each span was told,
            and ``span_words`` int64 (rows, 15), its ids.

        Raises:
            DataError: if the shapes contradict each other or the config.
        """
        if "text2audio" not in batch:
            known = {key: batch[key] for key in ("vmasks", "audio_clips") if key in batch}
            return {
                "pooled_video": self.encode_video(vfeats, **known),
                "pooled_text": self.encode_text(batch["caps"], batch.get("cmasks")),
            }
        self._check(vfeats, batch)
        examples = len(vfeats)
        frames = self.encode_frames(vfeats)
        sounds = self.audio_encoder(batch["audio_clips"].flatten(0, 1))
        kinds = {name: _kind(batch, name) for name in (*SPAN_SOURCES, _MATCHING) if name in batch}
        wanted = [(_MATCHING, LTOVPOOL), (SPAN_SOURCES[0], MASKAUDIO)]
        wanted += [(name, MASK) for name in SPAN_SOURCES if name in kinds]
        sources, grid = self._sources(batch), self.pooled_grid(vfeats)
        states = self._states(kinds, frames, sounds, grid, sources, examples, wanted)

        def pooled(name: str, token: int, pointers: Tensor, slots: int) -> Pooled:
            told = self.head(states[name, token])
            return pool_by_pointer(told, kinds[name].tokens == token, pointers, slots, examples)

        segments, spans = vfeats.shape[1], batch["text_spans"].shape[1]
        order = (kinds[_MATCHING].tokens == LTOVPOOL).cumsum(1) - 1
        matched = pooled(_MATCHING, LTOVPOOL, order, segments)
        heard = pooled(SPAN_SOURCES[0], MASKAUDIO, kinds[SPAN_SOURCES[0]].audio_pointers, SOUNDS * segments)
        told = [pooled(name, MASK, kinds[name].text_pointers, spans) for name in SPAN_SOURCES if name in kinds]
        scales = (single_or_double(self.contrastive_scales).clamp(max=_MAX_SCALE) / 2).exp().unbind()
        return {
            "imgs_to_audio_x": _scaled(matched.states.flatten(0, 1), scales[0]),
            "imgs_to_audio_y": _scaled(frames.cls, scales[0]),
            **self._sounds(heard, sounds.cls.unflatten(0, (examples, -1)), scales[1]),
            **self._spans(told, batch, scales[2]),
        }

    @staticmethod
    def contrasted(outputs: Batch) -> dict[str, Contrast]:
        """Return what the objectives compare; text spans of the same words are one."""
        more = {
            "text_to_audio": {"others": outputs["text_to_audio_y_extra"]},
            "stuff_to_span": {"keys": outputs["span_words"]},
        }
        return {name: Contrast(outputs[f"{name}_x"], outputs[f"{name}_y"], **more.get(name, {})) for name in OBJECTIVES}

    def _check(self, vfeats: Tensor, batch: Batch) -> None:
        segments, groups = vfeats.shape[1], self.sequence.num_segment_groups
        problems = [
            f"{name}: {tuple(batch[name].shape)} for {groups} groups of segments (dataset.num_segment_groups)"
            for name in SPAN_SOURCES[:2]
            if batch[name].shape[1] != groups
        ]
        if segments % groups:
            problems.append(f"vfeats: {segments} segments for {groups} groups")
        if batch["audio_clips"].shape[1] != SOUNDS * segments:
            problems.append(f"audio_clips: {batch['audio_clips'].shape[1]} sounds for {segments} segments")
        if problems:
            raise DataError("; ".join(problems))

    def _sources(self, batch: Batch) -> dict[str, Tensor]:
        """Return for text2audio and audio2text the video of each segment of each sequence, (B * G, S / G)."""
        groups = self.sequence.num_segment_groups
        index = batch["video_src_index"]
        shape = (len(index), 2 * groups)
        if "noise_split" in batch:
            split, cut = batch["noise_split"], batch["noise_cut"]
        else:
            split = torch.rand(shape, device=index.device) < SPLIT_PROBABILITY * self.training
            cut = torch.rand(shape, device=index.device)
        sources = index.unflatten(1, (groups, -1)).flatten(0, 1)
        return {
            name: split_sources(sources, own.flatten(), place.flatten())
            for name, own, place in zip(SPAN_SOURCES[:2], split.chunk(2, dim=1), cut.chunk(2, dim=1), strict=True)
        }

    def _states(
        self,
        kinds: dict[str, _Kind],
        frames: Encoded,
        sounds: Encoded,
        grid: tuple[int, int],
        sources: dict[str, Tensor],
        examples: int,
        wanted: list[tuple[str, int]],
    ) -> dict[tuple[str, int], Tensor]:
        """Run the joint transformer on all sequences at once.

        Returns:
            For each of ``wanted``, a kind and a token, the states of its tokens in raster order, (rows, D).
        """
        groups = self.sequence.num_segment_groups
        vision = frames.pooled.unflatten(0, (examples * groups, -1))
        audio = sounds.pooled.unflatten(0, (examples, -1))
        inputs = {}
        for name, kind in kinds.items():
            segments, parts = None, {}
            if name in sources:
                per_group = vision.shape[1]
                segments = torch.where(kind.audio_pointers < 0, -1, kind.audio_pointers // SOUNDS % per_group)
                parts = {"vision": vision, "vision_grid": grid, "sources": sources[name]}
            elif name == _MATCHING:
                segments = (kind.tokens == LTOVPOOL).cumsum(1)
            if name != SPAN_SOURCES[2]:
                parts["audio"] = audio.repeat_interleave(len(kind.tokens) // examples, dim=0)
                parts["audio_pointers"] = kind.audio_pointers
            inputs[name] = self.joint_inputs(kind.tokens, segments, padding_length=self.sequence.seq_len, **parts)
        joint = JointInputs(*(torch.cat(part) for part in zip(*inputs.values(), strict=True)))
        length, places, first = joint.x.shape[1], {}, 0
        for name, kind in kinds.items():
            for token in [token for other, token in wanted if other == name]:
                chosen = F.pad(kind.tokens == token, (0, length - kind.tokens.shape[1]))
                places[name, token] = places_of(chosen, length) + first * length
            first += len(kind.tokens)
        states = self.join(joint, torch.cat(list(places.values())))
        return dict(zip(places, states.split([len(part) for part in places.values()]), strict=True))

    def _sounds(self, heard: Pooled, vectors: Tensor, scale: Tensor) -> Batch:
        """Return the rows of telling sounds of ``vectors`` (B, A, D)."""
        count = int(vectors.shape[1] * self.sequence.mask_rate)
        told, others = choose_sounds(heard.hits, count)

        def rows(values: Tensor, chosen: Tensor) -> Tensor:
            return _scaled(values.gather(1, chosen[..., None].expand(-1, -1, values.shape[-1])).flatten(0, 1), scale)

        return {
            "text_to_audio_x": rows(heard.states, told),
            "text_to_audio_y": rows(vectors, told),
            "text_to_audio_y_extra": rows(vectors, others),
        }

    def _spans(self, told: list[Pooled], batch: Batch, scale: Tensor) -> Batch:
        """Return the rows of telling text spans, chosen over the whole batch."""
        spans = batch["text_spans"]
        noise = batch.get("noise_gumbel")
        if noise is None:
            noise = -torch.rand(spans.shape[:2], device=spans.device).clamp(1e-20, 1 - 1e-7).log().neg().log()
        hits = torch.stack([one.hits for one in told])
        valid = (spans != PAD).any(-1) & (hits.sum(0) > 0)
        chosen = choose_spans(valid, hits[:2].sum(0), noise, self.options.text_spans * len(spans))
        words = spans.flatten(0, 1)[chosen]
        states = torch.stack([one.states for one in told]).sum(0).flatten(0, 1)[chosen]
        vectors = self.span_encoder(self.token_encoder(words), words != PAD)
        return {
            "stuff_to_span_x": _scaled(states, scale),
            "stuff_to_span_y": _scaled(vectors, scale),
            "span_sources": hits.flatten(1).argmax(0)[chosen],
            "span_words": words,
        }


def _kind(batch: Batch, name: str) -> _Kind:
    return _Kind(*(batch[key].flatten(0, 1) for key in (name, f"{name}_audio_ptr", f"{name}_text_ptr")))


def _scaled(rows: Tensor, scale: Tensor) -> Tensor:
    """Return rows (N, D) of length ``scale``, in float32 at least."""
    return unit_rows(single_or_double(rows)) * scale
