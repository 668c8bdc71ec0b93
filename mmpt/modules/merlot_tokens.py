"""Ids that MERLOT's vocabulary (arXiv:2106.02636) sets apart: its BPE begins at 100."""

from types import MappingProxyType

__all__ = [
    "END",
    "FIRST_WORD",
    "MASK",
    "NEXTCAPTION_END",
    "NEXTCAPTION_START",
    "NEXTCAPTION_TIME",
    "PADDING",
    "SPECIAL",
    "START",
]

PADDING, MASK, START, END = 0, 1, 2, 3
NEXTCAPTION_TIME, NEXTCAPTION_START, NEXTCAPTION_END = 4, 5, 6
#: Ids below are special, whether they have a meaning or are reserved; a GPT-2 id plus this is MERLOT's.
FIRST_WORD = 100

SPECIAL = MappingProxyType(
    {
        "PADDING": PADDING,
        "MASK": MASK,
        "START": START,
        "END": END,
        "NEXTCAPTION_TIME": NEXTCAPTION_TIME,
        "NEXTCAPTION_START": NEXTCAPTION_START,
        "NEXTCAPTION_END": NEXTCAPTION_END,
    }
)
