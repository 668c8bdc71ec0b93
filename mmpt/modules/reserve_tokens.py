"""Ids that the vocabulary of MERLOT Reserve (arXiv:2201.02639) sets apart."""

from mmpt.utils.special_ids import RESERVE as SPECIAL
from mmpt.utils.special_ids import RESERVE_FIRST_WORD as FIRST_WORD

__all__ = [
    "AUDIOSPAN",
    "END",
    "FIRST_WORD",
    "LTOVPOOL",
    "MASK",
    "MASKAUDIO",
    "PAD",
    "RESETCTX",
    "SPECIAL",
    "START",
    "UNK",
]

PAD, START, END = (SPECIAL[name] for name in ("PAD", "START", "END"))
MASK, MASKAUDIO, AUDIOSPAN = (SPECIAL[name] for name in ("MASK", "MASKAUDIO", "AUDIOSPAN"))
LTOVPOOL, UNK, RESETCTX = (SPECIAL[name] for name in ("LTOVPOOL", "UNK", "RESETCTX"))
