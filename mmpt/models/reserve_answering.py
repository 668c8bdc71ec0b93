"""MERLOT Reserve fine-tuned to choose among answers: VCR and TVQA (arXiv:2201.02639, section 4 and its appendix).

Every answer is read together with its question as one text that ends in a MASK, beside the frames. The joint encoder's
state at the first MASK goes through one linear map without bias (``proj``) to the answer's score.

Shapes: B batch, Q questions of an item, O options of a question, X text positions, T frames, (H, W) pixels.
"""

from typing import Any

from torch import Tensor

__all__ = ["ReserveTVQA", "ReserveVCR"]


class ReserveVCR:
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

    capabilities = frozenset({"multiple_choice"})

    def option_scores(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **kwargs: Any) -> Tensor:
        """Score the options: float (B, Q, 4), or (B, 4) where Q is 1."""
        raise NotImplementedError

    def forward(self, answers: Tensor | None = None, **batch: Any) -> dict[str, Tensor]:
        """Return ``logits`` as :meth:`option_scores`, and ``answers`` as ``targets`` (B, Q): for CrossEntropy."""
        raise NotImplementedError


class ReserveTVQA:
    """Reserve that answers a question about a video with sound and subtitles, as in TVQA.

    Each option is read twice: once with the subtitles, once with the sound. A text is ``"<start%> to <end%>" START
    question "answer: " choice MASK`` (segment 0), then for each of segments 1..7 its subtitles (first kind) or 18
    AUDIOSPAN (second kind), padded with 0, cut at X. Frame and sound k (0..6) belong to segment k + 1. The n-th run of
    6 AUDIOSPAN of a text is read from ``audio_clips[:, n]``, so the runs must begin with the first clip and leave none
    out.

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

    capabilities = frozenset({"multiple_choice"})

    def option_scores(
        self,
        caps: Tensor,
        cmasks: Tensor,
        vfeats: Tensor,
        vmasks: Tensor,
        segments: Tensor,
        audio_clips: Tensor,
        **kwargs: Any,
    ) -> Tensor:
        """Score the options, float (B, 5): the sum of the two kinds' probabilities (softmax over the options)."""
        raise NotImplementedError

    def forward(self, answers: Tensor | None = None, **batch: Any) -> dict[str, Tensor]:
        """Return ``logits`` (B, 2, 5) of the two kinds, and ``answers`` twice as ``targets`` (B, 2).

        Its loss is ``ReserveTVQALoss``: the sum of both kinds' cross entropies; logs the accuracy of both together.
        """
        raise NotImplementedError
