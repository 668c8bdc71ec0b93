"""The one interface of all systems, and what their constructors share."""

import abc
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mmpt.models.grad_cache import recomputed
from mmpt.utils.options import section_of

__all__ = [
    "TINY_BERT",
    "Contrast",
    "VideoTextModel",
    "encode_by_length",
    "longest",
    "masked_mean",
    "starts_from_pretrained",
    "valid_lengths",
]

# Parts of fewer rows cost more in calls than they save in padding.
MIN_ROWS = 8

#: Folder of the small BERT that ``tiny_config`` names, below the repository.
TINY_BERT = "tests/data/tiny_bert"


class Contrast(NamedTuple):
    """What a contrastive objective compares in a batch, as a test needs it.

    Attributes:
        queries: (N, H).
        own: (N, H), the candidate that each query is to find.
        others: (M, H), candidates of no query.
        keys: int64 (N, W), where nothing is among ``others``: what the own candidates were made of. Those of equal
            keys are one, though their vectors differ by a rounding in batches of other sizes. None: all are unlike.
    """

    queries: Tensor
    own: Tensor
    others: Tensor | None = None
    keys: Tensor | None = None


class VideoTextModel(nn.Module, abc.ABC):
    """A model that scores videos against texts.

    Subclasses take the whole config and say in class attributes which keys of a checkpoint they do not need
    (``allow_missing``) and which they leave aside (``allow_unexpected``), as shell-style patterns. ``new_heads`` are
    the keys that a training may begin without (the heads that fine-tuning adds); a test never may. ``forward`` takes
    a batch by keyword and returns a dict of outputs for the loss.

    ``capabilities``, which a config may change, are among ``"retrieval"`` (``forward`` returns ``pooled_video`` and
    ``pooled_text``, both (B, H), and neither depends on the other), ``"pairs"`` (it returns them, but video and text
    see each other), ``"fusion"`` (both sides are encoded apart, and ``score_aligned`` fuses a pair to score it),
    ``"frame_states"`` (``encode_video_frames``), ``"masked_modeling"`` (scores of what labels mask),
    ``"multiple_choice"`` (``option_scores`` of a batch of questions, (B, options)), ``"answering"``
    (``answer_scores``, (B, answers)), ``"captioning"``, ``"segmentation"`` and ``"localization"``.
    """

    capabilities: frozenset[str] = frozenset()
    #: Whether the video input is raw frames (B, T, 3, S, S), not features of seconds (B, M, D).
    reads_frames: ClassVar[bool] = False
    new_heads: ClassVar[tuple[str, ...]] = ()
    allow_missing: ClassVar[tuple[str, ...]] = ()
    allow_unexpected: ClassVar[tuple[str, ...]] = ()
    config_options: ClassVar[dict[str, type]] = {}

    @classmethod
    @abc.abstractmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of the smallest useful size, for tests."""

    def published_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bring a file's weights to the names of this model, where publications have used others."""
        return state

    @abc.abstractmethod
    def encode_video(self, vfeats: Tensor, vmasks: Tensor) -> Any:
        """Encode videos: features (B, M, D) with masks (B, M), true where a second is real, to (B, H).

        Systems of raw frames take (B, T, 3, S, S), and those with ``"fusion"`` give sequences, not vectors.
        """

    @abc.abstractmethod
    def encode_text(self, caps: Tensor, cmasks: Tensor) -> Any:
        """Encode texts: token ids (B, L) in the layout ``[CLS] [SEP] w.. [SEP] pad..`` with masks, to (B, H)."""

    def score_pairs(self, text: Any, video: Any) -> Tensor:
        """Score every text (Nt, H) against every video (Nv, H): dot products, (Nt, Nv)."""
        return text @ video.T


def starts_from_pretrained(config: Any, init: str) -> bool:
    """Say whether a model built from ``config`` is to load its encoders' pretrained weights.

    It is not when ``model.init`` is ``"random"``, nor when a checkpoint replaces all weights anyway: in the test
    split, and where ``fairseq.checkpoint.restore_file`` is set.
    """
    if init == "random":
        return False
    dataset = section_of(config, "dataset") or {}
    checkpoint = (section_of(config, "fairseq") or {}).get("checkpoint") or {}
    return dataset.get("split") != "test" and not checkpoint.get("restore_file")


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Average states (B, L, H) where ``mask`` (B, L) is true; a row without any gives zeros. Returns (B, H)."""
    weights = mask.to(states.dtype)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
    return torch.bmm(weights[:, None], states)[:, 0]


def valid_lengths(mask: Tensor) -> Tensor:
    """Return for each row of a bool mask (B, L) the position after its last true element, int64 (B,)."""
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return (mask * positions).amax(1) if mask.shape[1] else mask.new_zeros(len(mask), dtype=torch.long)


def longest(mask: Tensor) -> int:
    """Return the greatest of the :func:`valid_lengths` of a bool mask (B, L); 0 for no rows."""
    return int(valid_lengths(mask).max()) if len(mask) else 0


def encode_by_length(
    mask: Tensor, groups: int, encode: Callable[[Tensor | slice, int], Tensor], max_rows: int | None = None
) -> Tensor:
    """Encode a batch in parts of similar length, each without the padding its rows share.

    Args:
        mask: bool (B, L), true where an element is real.
        groups: how many parts; fewer where they would have fewer than 8 rows. 0 is for what computes nothing for
            padding anyway: the batch stays whole, at its full length.
        encode: called with the rows of a part (an index) and its greatest length; returns (rows, H).
        max_rows: the most rows of a part. A batch of more is encoded in more parts, whose activations are not kept but
            computed again in the backward pass (:mod:`mmpt.models.grad_cache`).

    Returns:
        (B, H) in the order of the batch, equal to encoding it whole up to rounding.
    """
    too_many = max_rows is not None and len(mask) > max_rows
    if not groups and not too_many:
        return encode(slice(None), mask.shape[1])
    groups = max(min(groups, len(mask) // MIN_ROWS), math.ceil(len(mask) / max_rows) if max_rows and too_many else 1)
    if groups <= 1:
        return encode(slice(None), longest(mask))
    lengths = valid_lengths(mask)
    order = lengths.argsort(stable=True)
    greatest = [int(length) for length in lengths[order].tolist()]
    parts, start = [], 0
    for rows in order.tensor_split(groups):
        start += len(rows)
        length = greatest[start - 1]
        parts.append(recomputed(encode, rows, length) if too_many else encode(rows, length))
    return torch.cat(parts)[order.argsort()]
