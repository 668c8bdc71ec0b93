"""Ids that MERLOT's vocabulary (arXiv:2106.02636) sets apart: its BPE begins at 100."""

from mmpt.utils.special_ids import MERLOT as SPECIAL
from mmpt.utils.special_ids import MERLOT_FIRST_WORD as FIRST_WORD

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

PADDING, MASK, START, END = (SPECIAL[name] for name in ("PADDING", "MASK", "START", "END"))
NEXTCAPTION_TIME = SPECIAL["NEXTCAPTION_TIME"]
NEXTCAPTION_START = SPECIAL["NEXTCAPTION_START"]
NEXTCAPTION_END = SPECIAL["NEXTCAPTION_END"]
