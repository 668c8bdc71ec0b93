"""Ids that the vocabularies of MERLOT (arXiv:2106.02636) and MERLOT Reserve (arXiv:2201.02639) set apart from words."""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["MERLOT", "MERLOT_FIRST_WORD", "RESERVE", "RESERVE_FIRST_WORD"]

#: MERLOT's; those that are not named, up to :data:`MERLOT_FIRST_WORD`, are reserved.
MERLOT: Mapping[str, int] = MappingProxyType(
    {
        "PADDING": 0,
        "MASK": 1,
        "START": 2,
        "END": 3,
        "NEXTCAPTION_TIME": 4,
        "NEXTCAPTION_START": 5,
        "NEXTCAPTION_END": 6,
    }
)
#: Ids below are special; a GPT-2 id plus this is MERLOT's.
MERLOT_FIRST_WORD = 100

#: MERLOT Reserve's; 7 has no use.
RESERVE: Mapping[str, int] = MappingProxyType(
    {
        "PAD": 0,
        "START": 1,
        "END": 2,
        "MASK": 3,
        "MASKAUDIO": 4,
        "AUDIOSPAN": 5,
        "LTOVPOOL": 6,
        "UNK": 8,
        "RESETCTX": 9,
    }
)
#: Ids from here on are words and parts of words.
RESERVE_FIRST_WORD = 10
