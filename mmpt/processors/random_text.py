"""Text that no video goes with, of which MERLOT Reserve tells spans as it tells those of transcripts (section 3.2).

It is a user's own: text files, or token ids in a :class:`~mmpt.utils.shardedtensor.ShardedTensor` (published: a part of
The Pile, within the records). Spans are as long as a subsegment's words are.
"""

import functools
import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from mmpt.modules.reserve_tokens import FIRST_WORD, MASK
from mmpt.processors.reserve_sequences import Layout, Part, join_parts
from mmpt.utils.errors import DataError
from mmpt.utils.files import resolve_path
from mmpt.utils.shardedtensor import open_shared
from mmpt.utils.shardedtensor_files import shard_paths
from mmpt.utils.subwords import load_subwords

__all__ = [
    "SPAN_LENGTHS",
    "IdText",
    "MaskedText",
    "RandomText",
    "TextFiles",
    "allowed_tokens",
    "mask_spans",
    "open_random_text",
    "unmasked_length",
]

#: Of a span to have 1, 2, .. 15 tokens, as the words of subsegments have.
SPAN_LENGTHS = np.array(
    [
        *(0.0323, 0.0524, 0.0876, 0.1176, 0.1374),
        *(0.1372, 0.1254, 0.1026, 0.0771, 0.0536),
        *(0.0343, 0.0204, 0.0118, 0.0066, 0.0037),
    ]
)
#: Weight of a span with a token that is not allowed, where others have 1.
_UNLIKELY = 0.2
#: Share of what the masked spans are expected to have that the text is longer by than the sequence.
_SURPLUS = 0.85
_BYTES_PER_TOKEN = 8
_ALLOWED = re.compile(r"[ A-Za-z0-9']*[A-Za-z0-9'][ A-Za-z0-9']*")


class RandomText(Protocol):
    """Some long text."""

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return ``count`` consecutive token ids from a random place, int64; fewer if there are no more."""


class MaskedText(NamedTuple):
    """A sequence of text, and ``spans``: the ids that each of its masks stands for, some of them maybe none."""

    layout: Layout
    spans: list[np.ndarray]


class IdText:
    """Token ids of documents, int (tokens,) each, one after another.

    Args:
        path: prefix of the ShardedTensor.

    Raises:
        DataError: if it holds no ids.
    """

    def __init__(self, path: str) -> None:
        self.path, self.shard = path, open_shared(path)
        if self.shard.data.ndim != 1 or self.shard.data.dtype.kind not in "iu" or not len(self.shard.data):
            raise DataError(f"{path}: no token ids, but {self.shard.data.dtype} of shape {self.shard.data.shape}")

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return ``count`` consecutive ids from a random place, int64; from the beginning again at the end."""
        starts, total = self.shard.starts, len(self.shard.data)
        place, found, count = int(rng.integers(total)), list[np.ndarray](), min(count, total)
        while count:
            number = int(np.searchsorted(starts, place, side="right")) - 1
            offset = place - int(starts[number])
            found.append(np.asarray(self.shard[number][offset : offset + count], np.int64))
            count -= len(found[-1])
            place = (place + len(found[-1])) % total
        ids = np.concatenate(found)
        return ids[ids >= FIRST_WORD]


class TextFiles:
    """Text files in UTF-8, however long: a piece is read and encoded when it is asked for.

    Args:
        paths: of the files.
        tokenizer: path of the encoding.

    Raises:
        DataError: if there is none, or nothing is in them.
    """

    def __init__(self, paths: Sequence[str], tokenizer: str) -> None:
        self.paths, self.tokenizer = list(paths), tokenizer
        self.sizes = np.array([os.path.getsize(path) for path in self.paths], np.int64)
        if not self.sizes.sum():
            raise DataError(f"dataset.random_text_path: nothing is in {', '.join(self.paths) or 'no file'}")

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return ``count`` consecutive ids from a random place in one of the files, int64; fewer if it has no more."""
        place = int(rng.integers(self.sizes.sum()))
        number = int(np.searchsorted(np.cumsum(self.sizes), place, side="right"))
        size, wanted = int(self.sizes[number]), count * _BYTES_PER_TOKEN
        begin = int(rng.integers(max(size - wanted, 0) + 1))
        with open(self.paths[number], "rb") as file:
            file.seek(begin)
            text = file.read(wanted).decode("utf-8", errors="ignore")
        # The first and the last word may be cut in two.
        text = text if begin == 0 else text.partition(" ")[2]
        text = text if begin + wanted >= size else text.rpartition(" ")[0]
        ids = np.asarray(load_subwords(self.tokenizer).encode(text), np.int64)
        return ids[ids >= FIRST_WORD][:count]


@functools.lru_cache(maxsize=4)
def allowed_tokens(tokenizer: str) -> np.ndarray:
    """Return which ids a target may have, bool (vocab_size,): words of letters, digits and apostrophes, and blanks.

    No blanks alone, no special ids, and not the first of the words.

    Args:
        tokenizer: path of the encoding.
    """
    subwords = load_subwords(tokenizer)
    allowed = np.zeros(subwords.vocab_size, bool)
    for token in range(FIRST_WORD + 1, subwords.vocab_size):
        allowed[token] = _ALLOWED.fullmatch(subwords.decode([token])) is not None
    return allowed


def open_random_text(path: Any, tokenizer: str) -> RandomText:
    """Open ``dataset.random_text_path``: the prefix of a ShardedTensor of ids, a text file, a pattern, or a list.

    Raises:
        DataError: if there is nothing of the kind; names the path.
    """
    given = [str(path)] if isinstance(path, str | os.PathLike) else [str(one) for one in path]
    if len(given) == 1 and shard_paths(resolve_path(given[0])).data.exists():
        return IdText(str(resolve_path(given[0])))
    files = [name for one in given for name in sorted(glob.glob(str(resolve_path(one)))) if Path(name).is_file()]
    if not files:
        raise DataError(
            f"dataset.random_text_path: {', '.join(given)}: no text file, and no ShardedTensor of token ids"
        )
    return TextFiles(files, tokenizer)


def unmasked_length(length: int, budget: int) -> int:
    """Return how many tokens are cut into spans for a sequence of ``length`` of which ``budget`` spans are masked."""
    return length + int((_SURPLUS * _mean_length() - 1) * budget)


def mask_spans(
    rng: np.random.Generator, text: RandomText, length: int, budget: int, first_span: int, allowed: np.ndarray
) -> MaskedText:
    """Draw a piece of text, cut it into spans and mask some of them.

    The piece is a little shorter than its masks allow for: what stands before and behind it fills the sequence.
    Subsegments are the numbers of the spans. Tokens that are not allowed are masked, but not asked for; a span with one
    is masked more rarely.

    Args:
        rng: of the item.
        text: to draw from.
        length: of the sequence.
        budget: how many spans are masked; fewer of a text that has no more.
        first_span: that the first mask asks for.
        allowed: bool (vocab_size,), of :func:`allowed_tokens`.

    Returns:
        The sequence, and ``budget`` spans.

    Raises:
        DataError: if an id is beyond the vocabulary.
    """
    cut = unmasked_length(length, budget)
    piece = text.sample(rng, cut + budget * len(SPAN_LENGTHS))
    if len(piece) and piece.max() >= len(allowed):
        raise DataError(f"dataset.random_text_path: id {piece.max()} is none of the {len(allowed)} of the tokenizer")
    cut = min(cut, len(piece))
    offset = int(rng.integers(len(piece) - cut + 1))
    ends = _span_ends(rng, cut) + offset
    spans = np.split(piece[offset : offset + cut], ends[:-1] - offset) if cut else []
    masked = _choose(rng, spans, budget, allowed)
    numbers = {span: first_span + number for number, span in enumerate(masked)}
    parts = [
        Part(np.array([MASK]), k, numbers[k], kept=True) if k in numbers else Part(span, k)
        for k, span in enumerate(spans)
    ]
    room = max(length - sum(len(part.tokens) for part in parts), 0)
    most = min(room, offset)
    before = int(rng.integers(min(max(room - (len(piece) - offset - cut), 0), most), most, endpoint=True))
    behind = room - before
    parts.insert(0, Part(piece[offset - before : offset], 0))
    parts.append(Part(piece[offset + cut : offset + cut + behind], max(len(spans) - 1, 0)))
    targets = [spans[k][allowed[spans[k]]] for k in masked]
    return MaskedText(join_parts(rng, parts, length), targets + [piece[:0]] * (budget - len(targets)))


def _mean_length() -> float:
    return float(np.average(np.arange(1, len(SPAN_LENGTHS) + 1), weights=SPAN_LENGTHS))


def _span_ends(rng: np.random.Generator, tokens: int) -> np.ndarray:
    """Draw where spans end that fill so many tokens; the last is cut."""
    drawn = rng.choice(len(SPAN_LENGTHS), size=max(tokens, 1), p=SPAN_LENGTHS / SPAN_LENGTHS.sum()) + 1
    ends = np.minimum(np.cumsum(drawn), tokens)
    return ends[: int(np.searchsorted(ends, tokens)) + 1]


def _choose(rng: np.random.Generator, spans: Sequence[np.ndarray], budget: int, allowed: np.ndarray) -> list[int]:
    """Draw the spans to mask, in order, without replacement."""
    weights = np.array([1.0 if allowed[span].all() else _UNLIKELY for span in spans])
    keys = np.log(weights) + rng.gumbel(size=len(spans))
    return sorted(np.argsort(-keys, kind="stable")[:budget].tolist())
