"""Cutting a transcript into MERLOT's chunks (arXiv:2106.02636, appendix): up to 31 tokens of speech, one frame each.

Pure functions of words and a tokenizer; :mod:`mmpt.store.segment_extraction` applies them to files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmpt.store.word_alignment import align_words
from mmpt.store.word_times import Word

__all__ = ["END_MARGIN", "MOST_TOKENS", "SENTENCE_SHARE", "Chunk", "merlot_chunks", "speechless_chunks"]

#: Tokens of a chunk beside its start token, and the share of them that makes it complete where a sentence ends.
MOST_TOKENS, SENTENCE_SHARE = 31, 0.75
#: Seconds before the end of a video from which no frame is taken: many files end earlier than they say.
END_MARGIN = 1.0

_SENTENCE_ENDS = (".", "?", "!")
_CLOSING = "\"')]}"

EncodeWords = Callable[[Sequence[str]], list[list[int]]]


@dataclass
class Chunk:
    """A stretch of speech and its frame; times in seconds of the video.

    ``tokens``: ids of the denoised words, or of the heard ones where there are no others. ``raw_tokens``: of the heard
    words. ``mid``: when the frame is shown.
    """

    start: float
    end: float
    mid: float
    tokens: list[int] = field(default_factory=list)
    raw_tokens: list[int] = field(default_factory=list)


@dataclass
class _Unit:
    """A heard word with the tokens of the words that stand for it."""

    word: Word
    raw: list[int]
    clean: list[int]
    ends_sentence: bool


def merlot_chunks(
    words: Sequence[Word],
    encode_words: EncodeWords,
    duration: float,
    denoised: Sequence[str] | None = None,
    most_tokens: int = MOST_TOKENS,
    sentence_tokens: float = SENTENCE_SHARE * MOST_TOKENS,
    end_margin: float = END_MARGIN,
) -> list[Chunk]:
    """Cut the speech of a video into chunks, in the order of time.

    A chunk closes before a word with which either transcript would have more than ``most_tokens``; behind a word that
    ends a sentence once the denoised one has ``sentence_tokens``; and at the end. Words that begin with & or end with ;
    (the remains of entities) are left out. A chunk is dropped if its frame, in the middle between the beginnings of its
    first and last word, would be shown less than ``end_margin`` before the end of the video.

    Args:
        words: in the order of their beginnings.
        encode_words: ids of each word in running text (:meth:`mmpt.utils.subwords.Subwords.encode_words`).
        duration: of the video, in seconds.
        denoised: words of the denoised transcript; None where there is none.
        most_tokens: of a chunk, in each transcript; what a single word has beyond is cut off.
        sentence_tokens: see above.
        end_margin: see above, in seconds.
    """
    chunks: list[Chunk] = []
    held: list[_Unit] = []
    for unit in _units([word for word in words if _is_word(word.text)], encode_words, denoised):
        if held and not _fits([*held, unit], most_tokens):
            chunks.append(_chunk(held, most_tokens))
            held = []
        held.append(unit)
        if unit.ends_sentence and sum(len(other.clean) for other in held) >= sentence_tokens:
            chunks.append(_chunk(held, most_tokens))
            held = []
    if held:
        chunks.append(_chunk(held, most_tokens))
    return [chunk for chunk in chunks if chunk.mid < duration - end_margin]


def speechless_chunks(duration: float, seconds: float, end_margin: float = END_MARGIN) -> list[Chunk]:
    """Return chunks without words, ``seconds`` long each: for videos in which nothing is said."""
    starts = np.arange(0.0, max(0.0, duration), seconds).tolist()
    chunks = [Chunk(start, min(start + seconds, duration), start + seconds / 2) for start in starts]
    return [chunk for chunk in chunks if chunk.mid < duration - end_margin]


def _is_word(text: str) -> bool:
    return bool(text) and not text.startswith("&") and not text.endswith(";")


def _units(words: list[Word], encode_words: EncodeWords, denoised: Sequence[str] | None) -> list[_Unit]:
    raw = encode_words([word.text for word in words])
    if denoised is None:
        return [_Unit(word, tokens, tokens, _ends_sentence(word.text)) for word, tokens in zip(words, raw, strict=True)]
    units = [_Unit(word, tokens, [], False) for word, tokens in zip(words, raw, strict=True)]
    if units:
        clean = [word for word in denoised if _is_word(word)]
        places = align_words([word.text for word in words], clean)
        for place, word, tokens in zip(places, clean, encode_words(clean), strict=True):
            units[place].clean += tokens
            units[place].ends_sentence = _ends_sentence(word)
    return units


def _ends_sentence(word: str) -> bool:
    return word.rstrip(_CLOSING).endswith(_SENTENCE_ENDS)


def _fits(units: list[_Unit], most_tokens: int) -> bool:
    return max(sum(len(unit.raw) for unit in units), sum(len(unit.clean) for unit in units)) <= most_tokens


def _chunk(units: list[_Unit], most_tokens: int) -> Chunk:
    first, last = units[0].word, units[-1].word
    return Chunk(
        start=first.start,
        end=max(unit.word.end for unit in units),
        mid=(first.start + last.start) / 2,
        tokens=[token for unit in units for token in unit.clean][:most_tokens],
        raw_tokens=[token for unit in units for token in unit.raw][:most_tokens],
    )
