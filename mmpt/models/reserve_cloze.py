"""MERLOT Reserve that fills the gap of a sentence about a video, without training (arXiv:2201.02639, section 4.3).

The joint encoder's state at the MASK is compared with the vector of each possible answer, which the span encoder makes.

Shapes: B batch, T frames, X text positions, C answers, L ids of an answer, (H, W) pixels, D hidden.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from mmpt.models.reserve_base import ReserveModel
from mmpt.modules.reserve_targets import unit_rows
from mmpt.modules.reserve_tokens import MASK, PAD
from mmpt.utils.errors import DataError

__all__ = ["ReserveCloze"]

#: What the cosine of two vectors is multiplied by.
_SCALE = 100.0
_ANSWERS_AT_ONCE = 1024


class ReserveCloze(ReserveModel):
    """Reserve with all of its pre-training's parts, as it answers by a phrase among many."""

    capabilities = frozenset({"answering"})
    allow_unexpected: ClassVar[tuple[str, ...]] = ()

    answers: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.register_buffer("answers", torch.zeros(0, self.hidden_size), persistent=False)

    def set_answers(self, spans: Tensor) -> None:
        """Encode what there is to choose from, int64 (C, L), padded with 0; it is kept until others are set."""
        with torch.no_grad():
            parts = spans.to(self.token_encoder.weight.device).split(_ANSWERS_AT_ONCE)
            self.answers = torch.cat([self.encode_text(part, part != PAD) for part in parts])

    def mask_vectors(
        self,
        caps: Tensor,
        cmasks: Tensor,
        segments: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
        audio_pointers: Tensor | None = None,
        audio_clips: Tensor | None = None,
    ) -> Tensor:
        """Return what the first MASK of each text says, unit vectors (B, D).

        Args:
            caps: int64 (B, X), ids with AUDIOSPAN in whole runs where sound is heard.
            cmasks: bool (B, X), true where an id is not padding.
            segments: int64 (B, X), the segment of each id, -1 at padding.
            vfeats: uint8 or float in [0, 1], (B, T, 3, H, W), frame t in segment t.
            vmasks: bool (B, T), true where a frame is real; the others are not seen.
            audio_pointers: int64 (B, X), which sound an AUDIOSPAN is of; needed with ``audio_clips``.
            audio_clips: (B, A, 60, 65); None: no sound is encoded at all.
        """
        tokens, seen = caps.masked_fill(~cmasks.bool(), PAD), vmasks.bool()
        audio = None
        if audio_clips is not None:
            audio = self.audio_encoder(audio_clips.flatten(0, 1)).pooled.unflatten(0, audio_clips.shape[:2])
        frames = vfeats.masked_fill(~seen[:, :, None, None, None], 0)
        inputs = self.joint_inputs(
            tokens,
            segments,
            vision=self.encode_frames(frames).pooled.unflatten(0, seen.shape),
            vision_grid=self.pooled_grid(vfeats),
            vision_mask=seen,
            audio=audio,
            audio_pointers=audio_pointers,
        )
        rows, places = torch.arange(len(tokens), device=tokens.device), (tokens == MASK).int().argmax(1)
        return unit_rows(self.head(self.join(inputs)[rows, places]))

    def answer_scores(self, answer_spans: Tensor | None = None, **batch: Any) -> Tensor:
        """Score the answers that were set, or those of each item, (B, C).

        Args:
            answer_spans: int64 (B, C, L), padded with 0: answers of each item's own, encoded here.
            batch: arguments of :meth:`mask_vectors`; others are ignored.

        Raises:
            DataError: if there are no answers of either kind.
        """
        names = ("caps", "cmasks", "segments", "vfeats", "vmasks", "audio_pointers", "audio_clips")
        if answer_spans is not None:
            spans = answer_spans.flatten(0, 1)
            own = self.encode_text(spans, spans != PAD).unflatten(0, answer_spans.shape[:2])
        elif len(self.answers):
            own = self.answers
        else:
            raise DataError("no answers to choose from: the predictor (ClozePredictor) sets those of the data")
        vectors = self.mask_vectors(**{name: batch[name] for name in names if name in batch})
        return _SCALE * (own.to(vectors.dtype) @ vectors[..., None])[..., 0]

    def forward(self, answers: Tensor | None = None, **batch: Any) -> dict[str, Tensor]:
        """Return ``logits`` as :meth:`answer_scores`, and ``answers``, int64 (B,), as ``targets``."""
        logits = self.answer_scores(**batch)
        return {"logits": logits} if answers is None else {"logits": logits, "targets": answers.reshape(-1)}
