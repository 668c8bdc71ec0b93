"""Vectors of videos and texts, and the score of every text with every video.

Shapes: N videos, W windows of one, M texts, L labels, H hidden.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpt.api.averaging import averaged, filled, label_vectors, mean_over_templates
from mmpt.api.text_input import TextReader
from mmpt.api.video_input import Rows
from mmpt.models.cross_modal import States
from mmpt.utils.errors import DataError

__all__ = ["PAIRS_AT_ONCE", "Comparer"]

#: Pairs that a fusing model scores at a time.
PAIRS_AT_ONCE = 64
TEXTS_AT_ONCE, VIDEOS_AT_ONCE = 64, 8


class Comparer:
    """Encodes rows and texts by a model, wherever it is, without gradients; results are float32 on the CPU.

    Args:
        model: in eval mode.
        texts: lays out texts.
    """

    def __init__(self, model: Any, texts: TextReader) -> None:
        self.model, self.texts = model, texts

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(parameter.device for parameter in self.model.parameters())

    @torch.inference_mode()
    def text_vectors(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        """Encode texts: float32 (M, H)."""
        parts = []
        for first in range(0, len(texts), batch_size):
            tokens = self.texts(texts[first : first + batch_size])
            caps, cmasks = tokens.caps.to(self.device), tokens.cmasks.to(self.device)
            parts.append(self.model.encode_text(caps, cmasks).float().cpu())
        return torch.cat(parts).numpy()

    @torch.inference_mode()
    def video_vectors(self, videos: Iterable[Rows], batch_size: int) -> np.ndarray:
        """Encode videos, whose windows are averaged: float32 (N, H)."""
        vectors, counts = [], []
        for batch, windows in _batches(videos, batch_size):
            vectors.append(self.model.encode_video(*self.moved(batch)).float().cpu())
            counts += windows
        parts = torch.cat(vectors).split(counts)
        found = torch.stack([averaged(part) for part in parts]).numpy()
        if not np.isfinite(found).all():
            raise DataError("the model gives vectors that are not finite: its weights or settings are damaged")
        return found

    @property
    def has_vectors(self) -> bool:
        """Whether videos and texts have vectors, or only pairs have scores."""
        return "retrieval" in getattr(self.model, "capabilities", ())

    def scores(self, texts: Sequence[str], videos: Iterable[Rows], batch_size: int) -> np.ndarray:
        """Score every text with every video, by dot products of vectors or fused: float32 (M, N)."""
        if not self.has_vectors:
            return self.fused_scores(texts, videos, batch_size)
        return self.text_vectors(texts, TEXTS_AT_ONCE) @ self.video_vectors(videos, batch_size).T

    def label_scores(
        self, videos: Iterable[Rows], labels: Sequence[str], templates: Sequence[str], batch_size: int = VIDEOS_AT_ONCE
    ) -> np.ndarray:
        """Score labels, each in every template, with videos: float32 (N, L).

        The vectors of a label's texts are averaged, or where there are none its scores.
        """
        texts = filled(templates, labels)
        if not self.has_vectors:
            return mean_over_templates(self.fused_scores(texts, videos, batch_size), len(labels))
        vectors = label_vectors(self.text_vectors(texts, TEXTS_AT_ONCE), len(labels))
        return self.video_vectors(videos, batch_size) @ vectors.T

    @torch.inference_mode()
    def fused_scores(self, texts: Sequence[str], videos: Iterable[Rows], batch_size: int) -> np.ndarray:
        """Fuse every text with every video, of which ``batch_size`` are held at a time: float32 (M, N)."""
        tokens = self.texts(texts)
        self.model.check_texts(tokens.caps)
        columns = []
        for batch, _ in _batches(videos, batch_size):
            video = self.model.encode_video(*self.moved(batch))
            columns.append(self._fuse(tokens, video, len(batch.vfeats)))
        return np.concatenate(columns, axis=1)

    def _fuse(self, tokens: Any, video: States, videos: int) -> np.ndarray:
        texts = len(tokens.caps)
        pairs = torch.cartesian_prod(torch.arange(texts), torch.arange(videos)).view(-1, 2)
        scores = []
        for part in pairs.split(PAIRS_AT_ONCE):
            needed, place = part[:, 0].unique(return_inverse=True)
            pretext = {name: value[needed].to(self.device) for name, value in tokens.pretext.items()}
            text = self.model.encode_text(
                tokens.caps[needed].to(self.device), tokens.cmasks[needed].to(self.device), **pretext
            )
            aligned = self.model.score_aligned(text.rows(place.to(self.device)), video.rows(part[:, 1].to(self.device)))
            scores.append(aligned.float().cpu())
        return torch.cat(scores).view(texts, videos).numpy()

    def moved(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return rows where the model is."""
        return rows.vfeats.to(self.device), rows.vmasks.to(self.device)


def _batches(videos: Iterable[Rows], size: int) -> Iterator[tuple[Rows, list[int]]]:
    """Yield batches of about ``size`` windows, each with how many the videos in it have."""
    held: list[Rows] = []
    for video in videos:
        held.append(video)
        if sum(len(one.vfeats) for one in held) >= size:
            yield _joined(held), [len(one.vfeats) for one in held]
            held = []
    if held:
        yield _joined(held), [len(one.vfeats) for one in held]


def _joined(rows: Sequence[Rows]) -> Rows:
    return Rows(torch.cat([one.vfeats for one in rows]), torch.cat([one.vmasks for one in rows]))
