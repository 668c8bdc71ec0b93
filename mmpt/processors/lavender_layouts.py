"""LAVENDER's texts (arXiv:2206.07160): word pieces with one ``[MASK]`` at which the answer of every task is told.

Pure functions of ids. ``room`` is ``dataset.max_text_len``; X, the length of a text, differs from it by what a task
adds. Whether a position is padding is told by its id: none of these texts holds ``[PAD]`` before its padding ends.
"""

from collections.abc import Sequence

import numpy as np

from mmpt.processors.text_layouts import Layout, laid_out, plain
from mmpt.utils.tokenizers import SpecialIds

__all__ = [
    "INSERT_AT",
    "MASK_POSITIONS",
    "ask_choice",
    "ask_openly",
    "fill_in",
    "join_options",
    "match",
    "prompt_ids",
]

#: Where the answer of a multiple-choice question is told (``dataset.mask_pos``).
MASK_POSITIONS = ("append", "prepend", "insert", "replace")
#: Index of the ``[MASK]`` that is inserted.
INSERT_AT = 10


def match(words: Sequence[int], room: int, special: SpecialIds) -> Layout:
    """Lay out ``[CLS] w.. [SEP] [PAD].. [MASK]``, X = ``room`` + 1: does the text belong to the video?

    ``[MASK]`` comes after the padding, as in the published code. Its position embedding so depends on ``room``: the
    one that pre-training used is that of ``max_text_len: 32``. Published fine-tuning changes ``max_text_len`` (25 or
    100) all the same, and so the position.
    """
    text = plain(words, room, special)
    return Layout(np.append(text.caps, special.mask), np.append(text.cmasks, True), room, text.cut)


def fill_in(words: Sequence[int], room: int, special: SpecialIds) -> Layout:
    """Lay out a sentence with its ``[MASK]`` inside, as :func:`plain`; the first blank counts, -1 if it is cut off."""
    text = plain(words, room, special)
    blanks = np.flatnonzero(text.caps == special.mask)
    return text._replace(answer=int(blanks[0]) if len(blanks) else -1)


def ask_openly(words: Sequence[int], tail: Sequence[int], room: int, special: SpecialIds) -> Layout:
    """Lay out ``[CLS] question answer : [MASK] [SEP] [PAD]..``, X = ``room`` + 5.

    The question has up to ``room`` - 1 word pieces; ``tail`` are the ids of ``answer :``.
    """
    kept = list(words[: room - 1])
    answer = 1 + len(kept) + len(tail)
    ids = [special.cls, *kept, *tail, special.mask, special.sep]
    return laid_out(ids, room + 3 + len(tail), special, len(words) - len(kept), answer)


def join_options(
    question: Sequence[int], options: Sequence[Sequence[int]], heads: Sequence[Sequence[int]], special: SpecialIds
) -> list[int]:
    """Join a question and its options: ``question [SEP] option 0 : a [SEP] option 1 : b ..``.

    ``heads`` are the ids of ``option 0 :``, ``option 1 :`` .., at least as many as options.
    """
    joined = list(question)
    for head, option in zip(heads, options, strict=False):
        joined += [special.sep, *head, *option]
    return joined


def ask_choice(words: Sequence[int], room: int, special: SpecialIds, mask_pos: str | None = "append") -> Layout:
    """Lay out a question joined with its options, of which up to ``room`` - 1 word pieces fit.

    Args:
        words: of :func:`join_options`.
        mask_pos: ``append`` ``[CLS] w.. [MASK] [SEP]``; ``prepend`` ``[MASK] [CLS] w.. [SEP]``; ``insert`` has
            ``[MASK]`` at index 10, or before ``[SEP]`` in a shorter text; in these X = ``room`` + 3. ``replace``
            ``[MASK] w.. [SEP]``, X = ``room`` + 2. None: ``[CLS] w.. [SEP]``, X = ``room`` + 2, without a ``[MASK]``
            (the task-specific baseline).

    Raises:
        ValueError: if ``mask_pos`` is none of these.
    """
    kept = list(words[: room - 1])
    ids = [special.cls, *kept, special.sep]
    positions = {"append": 1 + len(kept), "prepend": 0, "insert": min(INSERT_AT, 1 + len(kept)), "replace": 0}
    answer = -1 if mask_pos is None else positions.get(mask_pos)
    if answer is None:
        raise ValueError(f"mask_pos {mask_pos!r} is none of {', '.join(MASK_POSITIONS)}")
    if mask_pos == "replace":
        ids[0] = special.mask
    elif mask_pos is not None:
        ids.insert(answer, special.mask)
    length = room + (2 if mask_pos in ("replace", None) else 3)
    return laid_out(ids, length, special, len(words) - len(kept), answer)


def prompt_ids(words: Sequence[int], special: SpecialIds) -> np.ndarray:
    """Return a prompt, ``[CLS] w.. [SEP]``, int64."""
    return np.array([special.cls, *words, special.sep], dtype=np.int64)
