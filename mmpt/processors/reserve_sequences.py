"""The sequences that MERLOT Reserve is trained on (section 3.2): parts of tokens, and how too long ones are shortened.

Each position of a sequence has a token, the subsegment it is of (``audio_ptr``) and the text span that it asks for
(``text_ptr``); -1 is none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmpt.modules.reserve_tokens import AUDIO_TOKENS, AUDIOSPAN, END, LTOVPOOL, MASK, MASKAUDIO, PAD
from mmpt.processors.reserve_spans import SUBSEGMENTS, Words

__all__ = [
    "Layout",
    "Part",
    "audio_to_text",
    "fill_spans",
    "join_parts",
    "matching",
    "text_to_audio",
]

#: How often a stretch of sound beside one that is to be told is shown as its words.
_ADJACENT_TEXT = 0.8


class Part(NamedTuple):
    """Tokens of one subsegment that stand together.

    Attributes:
        tokens: int64 (tokens,).
        audio: their subsegment, -1 for none.
        text: the span that they ask for, -1 for none.
        kept: whether they must be in the sequence, however long it is.
        whole: whether they are of no use in part.
    """

    tokens: np.ndarray
    audio: int = -1
    text: int = -1
    kept: bool = False
    whole: bool = False


class Layout(NamedTuple):
    """A sequence of fixed length L: ``tokens``, ``audio_ptr`` and ``text_ptr``, each int64 (L,)."""

    tokens: np.ndarray
    audio_ptr: np.ndarray
    text_ptr: np.ndarray


def text_to_audio(words: Words, owner: np.ndarray, targets: np.ndarray, subsegments: range) -> list[Part]:
    """Return the words of a group, and ``MASK MASKAUDIO`` in place of those of each target.

    Args:
        words: of the record.
        owner: of each word, of :func:`~mmpt.processors.reserve_spans.assign_targets`.
        targets: int64, in order: the first asks for span 0.
        subsegments: of the group.
    """
    spans, mask = _numbers(targets), np.array([MASK, MASKAUDIO])
    return [Part(mask, one, spans[one], kept=True) if one in spans else _text(words, owner, one) for one in subsegments]


def audio_to_text(
    rng: np.random.Generator,
    words: Words,
    owner: np.ndarray,
    targets: np.ndarray,
    subsegments: range,
    first_span: int,
) -> list[Part]:
    """Return the sound of a group, ``AUDIOSPAN`` so many times a subsegment, and ``MASK`` in place of each target.

    Four of five subsegments beside a target are shown as their words instead, if they have some: their sound would
    give away words that are cut in two.

    Args:
        rng: draws which.
        words: of the record.
        owner: of each word, of :func:`~mmpt.processors.reserve_spans.assign_targets`.
        targets: int64, in order.
        subsegments: of the group.
        first_span: that the first target asks for.
    """
    spans, parts = _numbers(targets), list[Part]()
    as_text = rng.random(len(subsegments)) < _ADJACENT_TEXT
    for one, drawn in zip(subsegments, as_text.tolist(), strict=True):
        if one in spans:
            parts.append(Part(np.array([MASK]), one, first_span + spans[one], kept=True))
            continue
        beside = any(near in spans and near in subsegments for near in (one - 1, one + 1))
        text = _text(words, owner, one)
        parts.append(text if beside and drawn and len(text.tokens) else _sound(one))
    return parts


def matching(words: Words, metadata: Sequence[int], as_text: bool, length: int) -> list[Part]:
    """Return what is known of the video, then of every segment ``LTOVPOOL`` and its words, or its sound.

    What is known is cut at its end where it leaves no room for the rest.

    Args:
        words: of the record.
        metadata: ids, of which the last is ``END``; may be none.
        as_text: words or sound, of all segments alike.
        length: of the sequence.
    """
    nobody = np.full(len(words.ids), -1)
    parts = list[Part]()
    for one in range(len(words.sources)):
        if one % SUBSEGMENTS == 0:
            parts.append(Part(np.array([LTOVPOOL]), one, kept=True))
        parts.append(_text(words, nobody, one) if as_text else _sound(one))
    room = length - sum(len(part.tokens) for part in parts)
    if len(metadata) > room:
        metadata = [*metadata[: room - 1], END] if room > 1 else []
    return [Part(np.asarray(metadata, np.int64)), *parts]


def join_parts(rng: np.random.Generator, parts: Sequence[Part], length: int) -> Layout:
    """Join parts to a sequence, padded with ``PAD``, -1, -1.

    Where they are too long, first the ends are cut: on the left words before the first mask or sound, on the right what
    is behind the last mask. Where that is not enough, parts that need not be kept are left out at random. Sound is cut
    as a whole.

    Args:
        rng: draws what is left out.
        parts: of the sequence, in order.
        length: L; at least as much as what must be kept.
    """
    left = [part for part in parts if len(part.tokens)]
    over = sum(len(part.tokens) for part in left) - length
    if over > 0:
        left = _cut_ends(rng, left, over)
        over = sum(len(part.tokens) for part in left) - length
    if over > 0:
        left = _thinned(rng, left, over)
    counts = [len(part.tokens) for part in left]
    layout = Layout(np.full(length, PAD, np.int64), np.full(length, -1, np.int64), np.full(length, -1, np.int64))
    if left:
        filled = sum(counts)
        layout.tokens[:filled] = np.concatenate([part.tokens for part in left])
        layout.audio_ptr[:filled] = np.repeat([part.audio for part in left], counts)
        layout.text_ptr[:filled] = np.repeat([part.text for part in left], counts)
    return layout


def fill_spans(spans: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Return text spans cut at ``length`` tokens and padded with ``PAD``, int64 (spans, length)."""
    filled = np.full((len(spans), length), PAD, np.int64)
    for row, span in zip(filled, spans, strict=True):
        row[: len(span)] = span[:length]
    return filled


def _numbers(targets: np.ndarray) -> dict[int, int]:
    return {target: number for number, target in enumerate(targets.tolist())}


def _text(words: Words, owner: np.ndarray, subsegment: int) -> Part:
    own = words.of(subsegment)
    return Part(words.ids[own][owner[own] < 0], subsegment)


def _sound(subsegment: int) -> Part:
    return Part(np.full(AUDIO_TOKENS, AUDIOSPAN), subsegment, whole=True)


def _cut_ends(rng: np.random.Generator, parts: list[Part], over: int) -> list[Part]:
    """Cut ``over`` tokens off the ends, or as many as may be; how many of them at which end is random."""
    head = next((k for k, part in enumerate(parts) if part.kept or part.whole), len(parts))
    tail = next((k for k in range(len(parts) - 1, -1, -1) if parts[k].kept), head - 1) + 1
    first = sum(len(part.tokens) for part in parts[:head])
    last = sum(len(part.tokens) for part in parts[tail:])
    off_left = int(rng.integers(max(over - last, 0), min(over, first), endpoint=True)) if over < first + last else first
    begin = _without(parts[:head], off_left)
    end = _without([part._replace(tokens=part.tokens[::-1]) for part in reversed(parts[tail:])], over - off_left)
    return [*begin, *parts[head:tail], *(part._replace(tokens=part.tokens[::-1]) for part in reversed(end))]


def _without(parts: Sequence[Part], count: int) -> list[Part]:
    """Return parts without their first ``count`` tokens, or some more, if these end within a sound."""
    left = []
    for part in parts:
        off = min(max(count, 0), len(part.tokens))
        count -= off
        if not (part.whole and off) and off < len(part.tokens):
            left.append(part._replace(tokens=part.tokens[off:]))
    return left


def _thinned(rng: np.random.Generator, parts: list[Part], over: int) -> list[Part]:
    """Return parts without random ones of those that need not be kept, ``over`` tokens or more of them."""
    dropped = set[int]()
    for k in rng.permutation([k for k, part in enumerate(parts) if not part.kept]).tolist():
        if over <= 0:
            break
        dropped.add(k)
        over -= len(parts[k].tokens)
    return [part for k, part in enumerate(parts) if k not in dropped]
