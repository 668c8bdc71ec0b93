"""Captioning: a clip and the sentence to write about it, as inputs and labels from left to right.

Training reads ``[CLS] [SEP] [CLS] w1..wn`` and predicts ``w1..wn [SEP]``; a test gives the three prompt ids alone. The
sentence itself goes along: scores compare with what annotators wrote, not with what a vocabulary makes of it.
"""

from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.modules.masking import shift_for_generation
from mmpt.processors.base import TextProcessor
from mmpt.processors.ds_aligner import DSAligner
from mmpt.processors.msrvtt import MSRVTTMetaProcessor, MSRVTTTextOptions, MSRVTTTextProcessor, read_captions
from mmpt.utils.options import read_options

__all__ = ["DSNLGAligner", "MSRVTTNLGMetaProcessor", "MSRVTTNLGTextProcessor", "NLGTextProcessor"]


class NLGTextProcessor(TextProcessor):
    """Tokenise a sentence and keep it; of several sentences about one clip, tokenise the first and keep all."""

    def __call__(
        self, text_id: str | list[str], rng: np.random.Generator | None = None
    ) -> tuple[list[int], str | list[str]]:
        """Return the word-piece ids of a sentence, and the sentence or sentences."""
        return super().__call__(text_id if isinstance(text_id, str) else text_id[0], rng), text_id


class MSRVTTNLGMetaProcessor(MSRVTTMetaProcessor):
    """List ``(video_id, text_id)`` of MSR-VTT; with ``json_path`` the text id is the video id in every split."""

    def _texts(self, table: Any) -> list[str]:
        if not self.options.json_path:
            return super()._texts(table)
        captions = read_captions(self.options.json_path)
        return [name if name in captions else "" for name in table["video_id"]]


class MSRVTTNLGTextProcessor(MSRVTTTextProcessor):
    """Tokenise a caption and keep it; outside of training, all captions where the text id is a video's.

    In training with ``json_path`` the caption is drawn at each access, as in retrieval.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": MSRVTTTextOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        options = read_options(config, MSRVTTTextOptions)
        self.reference_path = options.json_path if options.split != "train" else None

    def __call__(  # type: ignore[override]
        self, text_id: str, rng: np.random.Generator | None = None
    ) -> tuple[list[int], str | list[str]]:
        """Return the word-piece ids of a caption, and the caption or all captions, the tokenised one first.

        Raises:
            DataError: if, in training, the video has no captions.
        """
        texts = read_captions(self.reference_path).get(text_id) if self.reference_path else None
        text = texts[0] if texts else self.choose(text_id, rng)
        return TextProcessor.__call__(self, text), list(texts) if texts else text


class DSNLGAligner(DSAligner):
    """Align the first ``max_video_len`` seconds of a clip with the sentence to write about it."""

    def __call__(
        self, video_id: Any, video_feature: Any, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return the inputs of :class:`~mmpt.models.captioning.MMFusionNLG`.

        ``text_feature`` is ``(token ids, sentence)``; of several sentences about a clip, a list. L is
        ``max_len - max_video_len``. The attention mask is made by the model, from ``vmasks`` and ``cmasks``.

        Returns:
            ``vfeats``, ``vmasks`` and ``video_id`` as :class:`DSAligner`, ``ref`` the sentence or sentences as they
            were written, and ``caps``, ``cmasks``, ``text_label``. In training and validation these are (L,):
            ``[CLS] [SEP] [CLS] w1..wn pad``, the mask, and ``-100 -100 w1..wn [SEP] -100``. In a test ``caps`` is
            ``[CLS] [SEP] [CLS]`` alone, ``cmasks`` all true (L,), and ``text_label`` the ids of ``[CLS] [SEP] w1..wn
            [SEP] pad`` (L,).

        Raises:
            DataError: as :class:`DSAligner`.
        """
        ids, reference = text_feature
        item = super().__call__(video_id, video_feature, ids, rng)
        caps: torch.Tensor = item["caps"]
        if self.split == "test":
            cls, sep = self.special_ids.cls, self.special_ids.sep
            inputs, labels = torch.tensor([cls, sep, cls]), caps
            item["cmasks"] = torch.ones_like(item["cmasks"])
        else:
            inputs, labels = (torch.from_numpy(array) for array in shift_for_generation(caps.numpy(), self.special_ids))
        return {**item, "caps": inputs, "text_label": labels, "ref": reference}
