"""Ids that the vocabulary of MERLOT Reserve (arXiv:2201.02639) sets apart, and sizes that all of its parts share."""

from mmpt.utils.special_ids import RESERVE as SPECIAL
from mmpt.utils.special_ids import RESERVE_FIRST_WORD as FIRST_WORD

__all__ = [
    "AUDIOSPAN",
    "AUDIO_TOKENS",
    "END",
    "FIRST_WORD",
    "LTOVPOOL",
    "MASK",
    "MASKAUDIO",
    "MOST_TEXT",
    "PAD",
    "PATCH",
    "RESETCTX",
    "SOUNDS",
    "SPAN_LENGTH",
    "SPAN_SOURCES",
    "SPECIAL",
    "START",
    "UNK",
]

PAD, START, END = (SPECIAL[name] for name in ("PAD", "START", "END"))
MASK, MASKAUDIO, AUDIOSPAN = (SPECIAL[name] for name in ("MASK", "MASKAUDIO", "AUDIOSPAN"))
LTOVPOOL, UNK, RESETCTX = (SPECIAL[name] for name in ("LTOVPOOL", "UNK", "RESETCTX"))

#: Pixels of a side of a frame's patches.
PATCH = 16
#: Stretches of sound of a segment.
SOUNDS = 3
#: Tokens that each of them is pooled to.
AUDIO_TOKENS = 6
#: Ids of a text span, at most.
SPAN_LENGTH = 15
#: Positions of a sequence without frames, at most: what times are counted in.
MOST_TEXT = 1024
#: Where a text span is told from, by its number: the kinds of sequences that ask for one.
SPAN_SOURCES = ("text2audio", "audio2text", "random_text")
