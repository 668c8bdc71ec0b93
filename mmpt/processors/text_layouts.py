"""Word pieces in a fixed number of positions: what the texts of VIOLET and LAVENDER are made of.

Pure functions of ids. X is the length of a text.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmpt.utils.tokenizers import SpecialIds

__all__ = ["Layout", "laid_out", "plain"]


class Layout(NamedTuple):
    """One text laid out.

    Attributes:
        caps: int64 (X,).
        cmasks: bool (X,), true where a position may be seen.
        answer: index of the ``[MASK]`` that stands for the answer; -1 where there is none.
        cut: word pieces that did not fit.
    """

    caps: np.ndarray
    cmasks: np.ndarray
    answer: int
    cut: int


def plain(words: Sequence[int], room: int, special: SpecialIds) -> Layout:
    """Lay out ``[CLS] w.. [SEP] [PAD]..``, X = ``room``."""
    kept = list(words[: room - 2])
    return laid_out([special.cls, *kept, special.sep], room, special, len(words) - len(kept))


def laid_out(ids: Sequence[int], length: int, special: SpecialIds, cut: int, answer: int = -1) -> Layout:
    """Return ids, special ones among them, with ``[PAD]`` behind up to ``length``; the rest as :class:`Layout`."""
    caps = np.full(length, special.pad, dtype=np.int64)
    caps[: len(ids)] = ids
    return Layout(caps, np.arange(length) < len(ids), answer, cut)
