"""Which words of a denoised transcript stand for which of the recognised ones, which alone have times.

By dynamic time warping over the edit distance of words within a band, as MERLOT does (arXiv:2106.02636, appendix).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["align_words", "edit_distances"]

#: The path may leave the diagonal by this share of the words, but at least and at most by so many.
_BAND_SHARE, _BAND_WORDS, _WIDEST_BAND = 0.1, 32, 512
_LONGEST = 32  # characters of a word that are compared
_PAIRS_AT_ONCE = 1 << 18
_ROWS_AT_ONCE = 1024


@dataclass
class _Band:
    """Numbers for the pairs near the diagonal: that of (row, column) stands at ``values[row, column - low[row]]``."""

    low: np.ndarray
    values: np.ndarray
    columns: int

    @classmethod
    def around(cls, rows: int, columns: int) -> "_Band":
        slope = (columns - 1) / (rows - 1) if rows > 1 else float(columns)
        radius = min(max(int(_BAND_SHARE * max(rows, columns)), _BAND_WORDS), _WIDEST_BAND)
        radius = max(radius, int(slope) + 1)  # or the band would have gaps
        low = np.rint(np.arange(rows) * slope).astype(np.int64) - radius
        return cls(low, np.full((rows, 2 * radius + 1), np.inf, np.float32), columns)

    def at(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Return the numbers of pairs, infinite outside of the band."""
        place = column - self.low[row]
        inside = (row >= 0) & (column >= 0) & (place >= 0) & (place < self.values.shape[1])
        return np.where(inside, self.values[row, np.where(inside, place, 0)], np.float32(np.inf))


def align_words(heard: Sequence[str], denoised: Sequence[str]) -> list[int]:
    """Return for each denoised word the position of the heard word that it belongs to; these never fall.

    Of several heard words on its stretch of the path a denoised word gets the one that is spelled most alike, the first
    of them where they are equal. Compared are letters and digits in lower case.

    Raises:
        ValueError: if there are denoised words but none was heard.
    """
    if not denoised:
        return []
    if not heard:
        raise ValueError("no heard words to align with")
    costs = _banded_costs([_bare(word) for word in heard], [_bare(word) for word in denoised])
    return _attach(costs, _path(costs))


def _bare(word: str) -> str:
    return "".join(c for c in word.lower() if c.isalnum())


def _banded_costs(heard: list[str], denoised: list[str]) -> _Band:
    """Return the edit distances of the pairs in the band."""
    band = _Band.around(len(heard), len(denoised))
    numbers: dict[str, int] = {}
    first = np.array([numbers.setdefault(word, len(numbers)) for word in heard])
    second = np.array([numbers.setdefault(word, len(numbers)) for word in denoised])
    words = list(numbers)
    for begin in range(0, len(heard), _ROWS_AT_ONCE):
        low = band.low[begin : begin + _ROWS_AT_ONCE]
        columns = low[:, None] + np.arange(band.values.shape[1])
        row, place = np.nonzero((columns >= 0) & (columns < len(denoised)))
        pairs = first[begin + row] * len(words) + second[columns[row, place]]
        distinct, position = np.unique(pairs, return_inverse=True)  # the same words meet again and again
        distances = edit_distances(words, words, distinct // len(words), distinct % len(words))
        band.values[begin + row, place] = distances[position]
    return band


def edit_distances(first: Sequence[str], second: Sequence[str], left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the Levenshtein distance of each pair of words, int32 (pairs,).

    Args:
        first: words; so much of each is compared as 32 characters.
        second: words.
        left: int (pairs,), positions in ``first``.
        right: int (pairs,), positions in ``second``.
    """
    (letters_a, length_a), (letters_b, length_b) = _letters(first), _letters(second)
    result = np.empty(len(left), np.int32)
    for begin in range(0, len(left), _PAIRS_AT_ONCE):
        part = slice(begin, begin + _PAIRS_AT_ONCE)
        a, b = left[part], right[part]
        result[part] = _distances(letters_a[:, a], length_a[a], letters_b[:, b], length_b[b])
    return result


def _letters(words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return code points (letters, words), -1 beyond the end of a word, and the lengths (words,)."""
    lengths = np.array([min(len(word), _LONGEST) for word in words], np.int64)
    letters = np.full((int(lengths.max(initial=0)), len(words)), -1, np.int32)
    for number, word in enumerate(words):
        letters[: lengths[number], number] = [ord(c) for c in word[:_LONGEST]]
    return letters, lengths


def _distances(a: np.ndarray, length_a: np.ndarray, b: np.ndarray, length_b: np.ndarray) -> np.ndarray:
    """Fill the table of Wagner and Fischer for all pairs at once; (letters, pairs) and (pairs,)."""
    pairs = np.arange(a.shape[1])
    row = np.repeat(np.arange(len(b) + 1, dtype=np.int16)[:, None], len(pairs), axis=1)
    result = np.where(length_a == 0, length_b, 0).astype(np.int32)
    for i in range(len(a)):
        before, row = row, np.empty_like(row)
        row[0] = i + 1
        for j in range(len(b)):
            np.minimum(before[j + 1], row[j], out=row[j + 1])
            row[j + 1] += 1
            np.minimum(row[j + 1], before[j] + (a[i] != b[j]), out=row[j + 1], casting="unsafe")
        ends = np.flatnonzero(length_a == i + 1)
        result[ends] = row[length_b[ends], ends]
    return result


def _path(costs: _Band) -> list[tuple[int, int]]:
    """Return the cells of the cheapest path from the first pair to the last; a diagonal step where steps are equal."""
    rows, columns, width = len(costs.low), costs.columns, costs.values.shape[1]
    total = _Band(costs.low, np.full_like(costs.values, np.inf), columns)
    begins = np.arange(rows) + np.maximum(costs.low, 0)
    ends = np.arange(rows) + np.minimum(costs.low + width, columns)
    for diagonal in range(rows + columns - 1):  # all cells of an antidiagonal at once
        row = np.arange(np.searchsorted(ends, diagonal, "right"), np.searchsorted(begins, diagonal, "right"))
        column = diagonal - row
        best = np.minimum(
            np.minimum(total.at(row - 1, column - 1), total.at(row - 1, column)), total.at(row, column - 1)
        )
        if diagonal == 0:
            best[:] = 0
        place = column - costs.low[row]
        total.values[row, place] = best + costs.values[row, place]
    cells, i, j = [(rows - 1, columns - 1)], rows - 1, columns - 1
    while i or j:
        steps = ((i - 1, j - 1), (i - 1, j), (i, j - 1))
        reached = total.at(*np.array(steps).T)
        i, j = steps[int(np.argmin(reached))]
        cells.append((i, j))
    return cells[::-1]


def _attach(costs: _Band, cells: list[tuple[int, int]]) -> list[int]:
    best: dict[int, tuple[float, int]] = {}
    for (row, column), cost in zip(cells, costs.at(*np.array(cells).T).tolist(), strict=True):
        if column not in best or cost < best[column][0]:
            best[column] = (cost, row)
    return [best[column][1] for column in range(costs.columns)]
