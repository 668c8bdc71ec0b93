"""MERLOT Reserve fine-tuned to choose among answers: VCR and TVQA (arXiv:2201.02639, section 4 and its appendix).

Every answer is read together with its question as one text that holds a MASK, beside the frames. The joint encoder's
state at the first MASK goes through one linear map without bias (``proj``) to the answer's score.

Shapes: B batch, Q questions of an item, O options of a question, X text positions, T frames, (H, W) pixels, V pooled
tokens of a frame, P positions of a joint sequence, D hidden.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmpt.models.reserve_base import ReserveModel
from mmpt.modules.linear import Linear
from mmpt.modules.reserve_tokens import AUDIO_TOKENS, AUDIOSPAN, MASK, PAD, SOUNDS
from mmpt.utils.errors import DataError

__all__ = ["ReserveAnswering", "ReserveTVQA", "ReserveVCR"]

#: Standard deviation of a new ``proj``.
_PROJECTION_STD = 0.01


class ReserveAnswering(ReserveModel):
    """Reserve with a score at the MASK of each text, in place of the parts that pre-training alone has."""

    capabilities = frozenset({"multiple_choice"})
    with_contrast: ClassVar[bool] = False
    new_heads: ClassVar[tuple[str, ...]] = ("proj.*",)
    allow_unexpected: ClassVar[tuple[str, ...]] = ("head.*", "span_encoder.*", "contrastive_scales")

    def add_heads(self) -> None:
        """Add ``proj``."""
        self.proj = Linear(self.hidden_size, 1, bias=False)

    def initialise(self) -> None:
        """Draw all weights as published."""
        super().initialise()
        nn.init.normal_(self.proj.weight, std=_PROJECTION_STD)

    def encode_text(self, caps: Tensor, cmasks: Tensor | None = None) -> Tensor:
        """Refuse: the span encoder is a part of pre-training alone."""
        raise DataError(f"{type(self).__name__} reads a text beside its video only; ReservePretraining encodes texts")

    def encode_video(self, vfeats: Tensor, vmasks: Tensor | None = None, audio_clips: Tensor | None = None) -> Tensor:
        """Refuse, as :meth:`encode_text`."""
        raise DataError(f"{type(self).__name__} reads a video beside a text only; ReservePretraining encodes videos")

    def frame_tokens(self, vfeats: Tensor, vmasks: Tensor) -> Tensor:
        """Return the pooled tokens of frames, (B, T, V, D); those that are not real are read as black."""
        seen = vmasks.bool()[:, :, None, None, None]
        return self.encode_frames(vfeats.masked_fill(~seen, 0)).pooled.unflatten(0, vmasks.shape)

    def score_texts(self, tokens: Tensor, segments: Tensor | None, **parts: Any) -> Tensor:
        """Score texts, int64 (N, X), at their first MASK: (N,); ``parts`` as of :meth:`joint_inputs`.

        Raises:
            DataError: if a text has no MASK.
        """
        is_mask = tokens == MASK
        if not bool(is_mask.any(1).all()):
            raise DataError(f"a text has no MASK (id {MASK}) to be scored at")
        states = self.join(self.joint_inputs(tokens, segments, **parts))
        rows = torch.arange(len(tokens), device=tokens.device)
        return self.proj(states[rows, is_mask.int().argmax(1)])[:, 0]


class ReserveVCR(ReserveAnswering):
    """Reserve that answers the questions about one image, as in VCR.

    A text is ``query + "answer: " | "rationale: " + choice``, cut to X - 1 ids, then MASK (3), padded with 0; no START.
    In training an item has two questions (Q->A, then QA->R); any number is taken, so that a test can ask the
    rationale for each of the four answers, or one question per item, which suits QAPredictor.

    Batch:
        vfeats: uint8 or float in [0, 1], (B, 1, 3, H, W), (H, W) = 16 * ``dataset.image_grid``; in segment 0.
        vmasks: bool (B, 1), all true.
        caps: int64 (B, Q, 4, X) or (B, 4, X), or these with their leading dimensions flattened into one
            (as Task does): (B * Q * 4, X), item by item, question by question. X is any length (144 as published).
        cmasks: bool of the shape of ``caps``, true where an id is not padding.
        answers: int64 (B, Q) or (B,), the index of the right option.
    """

    #: Options of a question.
    options_each: ClassVar[int] = 4
    with_audio: ClassVar[bool] = False
    allow_unexpected: ClassVar[tuple[str, ...]] = (*ReserveAnswering.allow_unexpected, "audio_encoder.*")

    def option_scores(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **kwargs: Any) -> Tensor:
        """Score the options: float (B, Q, 4), or (B, 4) where Q is 1.

        Raises:
            DataError: if the items have unlike numbers of texts, or not four for each question.
        """
        tokens = caps.masked_fill(~cmasks.bool(), PAD).flatten(0, -2)
        each, rest = divmod(len(tokens), len(vfeats))
        if rest or each % self.options_each or not each:
            raise DataError(
                f"{len(tokens)} texts for {len(vfeats)} images: every image needs {self.options_each} for each of its "
                "questions"
            )
        vision = self.frame_tokens(vfeats, vmasks).repeat_interleave(each, dim=0)
        scores = self.score_texts(tokens, None, vision=vision, vision_grid=self.pooled_grid(vfeats))
        scores = scores.view(len(vfeats), -1, self.options_each)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def forward(self, answers: Tensor | None = None, **batch: Any) -> dict[str, Tensor]:
        """Return ``logits`` as :meth:`option_scores`, and ``answers`` as ``targets`` of its shape: for CrossEntropy."""
        logits = self.option_scores(**batch)
        return {"logits": logits} if answers is None else {"logits": logits, "targets": answers.view(logits.shape[:-1])}


class ReserveTVQA(ReserveAnswering):
    """Reserve that answers a question about a video with sound and subtitles, as in TVQA.

    Each option is read twice: once with the subtitles, once with the sound. A text is
    ``"<start%> to <end%>" START question "answer: " choice MASK`` (segment 0), then for each of segments 1..7 its
    subtitles (first kind) or 18 AUDIOSPAN (second kind), padded with 0, cut at X. Frame and sound k (0..6) belong to
    segment k + 1. The n-th run of 6 AUDIOSPAN of a text is read from ``audio_clips[:, n]``, so the runs must begin with
    the first clip and leave none out.

    Batch:
        vfeats: uint8 or float in [0, 1], (B, 7, 3, H, W), (H, W) = 16 * ``dataset.image_grid``.
        vmasks: bool (B, 7), false where the clip has fewer frames; those are read as black, as published.
        caps: int64 (B, 2, 5, X): [subtitles, sound] of five options; or flattened (as Task does): (B * 10, X).
        cmasks: bool of the shape of ``caps``, true where an id is not padding.
        segments: int64 of the shape of ``caps``: the segment (0..7) of each id; -1 at padding.
        audio_clips: float16 or float32 (B, 21, 60, 65), three of each of the 7 segments, in order. Zeros where a clip
            has no sound.
        answers: int64 (B,), the index of the right option.
    """

    #: Kinds of text: with subtitles, with sound.
    kinds: ClassVar[int] = 2

    def kind_logits(
        self,
        caps: Tensor,
        cmasks: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
        segments: Tensor,
        audio_clips: Tensor,
        **kwargs: Any,
    ) -> Tensor:
        """Return the logits of the options, with subtitles and with sound: (B, 2, O).

        Raises:
            DataError: if the items have unlike numbers of texts, or not three sounds for each frame.
        """
        items = len(vfeats)
        tokens = caps.masked_fill(~cmasks.bool(), PAD).flatten(0, -2)
        if len(tokens) % (self.kinds * items) or segments.shape != caps.shape:
            raise DataError(
                f"{len(tokens)} texts for {items} videos, segments of shape {tuple(segments.shape)}: every video needs "
                "its options once with subtitles and once with sound, and every id its segment"
            )
        if audio_clips.shape[:2] != (items, SOUNDS * vfeats.shape[1]):
            raise DataError(
                f"audio_clips {tuple(audio_clips.shape)}: expected {SOUNDS} for each of {tuple(vmasks.shape)} frames"
            )
        sounds = self.audio_encoder(audio_clips.flatten(0, 1)).pooled.unflatten(0, (items, -1))
        vision = self.frame_tokens(vfeats, vmasks)
        each = len(tokens) // items
        pointers = ((tokens == AUDIOSPAN).cumsum(1) - 1).clamp(min=0) // AUDIO_TOKENS
        scores = self.score_texts(
            tokens,
            segments.flatten(0, -2),
            vision=vision.repeat_interleave(each, dim=0),
            vision_grid=self.pooled_grid(vfeats),
            vision_segments=torch.arange(1, vfeats.shape[1] + 1, device=tokens.device),
            audio=sounds.repeat_interleave(each, dim=0),
            audio_pointers=pointers,
        )
        return scores.view(items, self.kinds, -1)

    def option_scores(self, **batch: Any) -> Tensor:
        """Score the options by the sum of the two kinds' probabilities, (B, O); arguments as :meth:`kind_logits`."""
        return self.kind_logits(**batch).float().softmax(-1).sum(1)

    def forward(self, answers: Tensor | None = None, **batch: Any) -> dict[str, Tensor]:
        """Return ``logits`` (B, 2, O) of the two kinds, and ``answers`` twice as ``targets`` (B, 2).

        Its loss is ``ReserveTVQALoss``: the sum of both kinds' cross entropies; logs the accuracy of both together.
        """
        logits = self.kind_logits(**batch)
        if answers is None:
            return {"logits": logits}
        return {"logits": logits, "targets": answers.view(-1, 1).expand(-1, self.kinds)}
