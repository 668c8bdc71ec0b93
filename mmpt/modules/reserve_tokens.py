"""Ids that the vocabulary of MERLOT Reserve (arXiv:2201.02639) sets apart."""

from types import MappingProxyType

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

PAD, START, END, MASK, MASKAUDIO = 0, 1, 2, 3, 4
AUDIOSPAN, LTOVPOOL, UNK, RESETCTX = 5, 6, 8, 9
#: Ids from here on are words and parts of words.
FIRST_WORD = 10

SPECIAL = MappingProxyType(
    {
        "PAD": PAD,
        "START": START,
        "END": END,
        "MASK": MASK,
        "MASKAUDIO": MASKAUDIO,
        "AUDIOSPAN": AUDIOSPAN,
        "LTOVPOOL": LTOVPOOL,
        "UNK": UNK,
        "RESETCTX": RESETCTX,
    }
)
