"""MERLOT's chunks: the closing rules and the alignment, worked by hand and against plain implementations."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.store.merlot_chunks import Chunk, merlot_chunks, speechless_chunks
from mmpt.store.word_alignment import align_words, edit_distances
from mmpt.store.word_times import Word


def encode(words: list[str]) -> list[list[int]]:
    """One token for each letter."""
    return [[ord(c) for c in word] for word in words]


def spoken(text: str, step: float = 1.0) -> list[Word]:
    return [Word(word, number * step, number * step + 0.5) for number, word in enumerate(text.split())]


def text(chunk: Chunk) -> str:
    return "".join(map(chr, chunk.tokens))


def test_a_chunk_closes_before_it_is_too_long_and_at_the_end() -> None:
    chunks = merlot_chunks(spoken("abcd efgh ij kl"), encode, 100, most_tokens=8, sentence_tokens=6)
    assert [text(chunk) for chunk in chunks] == ["abcdefgh", "ijkl"]
    assert chunks[0] == Chunk(0, 1.5, 0.5, encode(["abcdefgh"])[0], encode(["abcdefgh"])[0])
    assert (chunks[1].start, chunks[1].mid, chunks[1].end) == (2, 2.5, 3.5)


def test_a_sentence_closes_a_chunk_that_is_long_enough() -> None:
    chunks = merlot_chunks(spoken('ab. cdef. gh "ij!" k'), encode, 100, most_tokens=20, sentence_tokens=6)
    assert [text(chunk) for chunk in chunks] == ["ab.cdef.", 'gh"ij!"', "k"]
    at_the_threshold = merlot_chunks(spoken("abcd? efg"), encode, 100, most_tokens=20, sentence_tokens=5)
    assert [text(chunk) for chunk in at_the_threshold] == ["abcd?", "efg"]
    below = merlot_chunks(spoken("abcd? efg"), encode, 100, most_tokens=20, sentence_tokens=5.25)
    assert [text(chunk) for chunk in below] == ["abcd?efg"]


def test_a_word_that_is_too_long_is_cut_and_remains_of_entities_are_dropped() -> None:
    chunks = merlot_chunks(spoken("a " + "x" * 40 + " b &amp gt; c"), encode, 100)
    assert [text(chunk) for chunk in chunks] == ["a", "x" * 31, "bc"]


def test_frames_near_the_end_are_dropped() -> None:
    words = spoken("aaaa bbbb cccc", step=5)  # at 0, 5, 10
    assert len(merlot_chunks(words, encode, 11.1, most_tokens=4)) == 3
    assert len(merlot_chunks(words, encode, 11.0, most_tokens=4)) == 2
    assert merlot_chunks([], encode, 100) == []
    assert merlot_chunks([], encode, 100, ["never", "heard"]) == []


def test_the_denoised_transcript_is_cut_where_the_heard_one_is() -> None:
    words = spoken("so welcom back two my chanel")
    denoised = ["So,", "welcome", "back", "to", "my", "channel."]
    chunks = merlot_chunks(words, encode, 100, denoised, most_tokens=15, sentence_tokens=12)
    assert [text(chunk) for chunk in chunks] == ["So,welcomeback", "tomychannel."]
    assert ["".join(map(chr, chunk.raw_tokens)) for chunk in chunks] == ["sowelcomback", "twomychanel"]
    # what the longer transcript has counts
    assert len(merlot_chunks(words, encode, 100, ["x"] * 3, most_tokens=16)) == 2


def test_speechless_chunks() -> None:
    chunks = speechless_chunks(12, 5)
    assert [(chunk.start, chunk.end, chunk.mid, chunk.tokens) for chunk in chunks] == [
        (0, 5, 2.5, []),
        (5, 10, 7.5, []),
    ]
    assert speechless_chunks(0, 5) == []


def levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        before, row = row, [i + 1]
        for j, y in enumerate(b):
            row.append(min(before[j + 1] + 1, row[j] + 1, before[j] + (x != y)))
    return row[-1]


WORDS = st.lists(st.text("abcü", max_size=6), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(first=WORDS, second=WORDS)
def test_edit_distances_are_levenshteins(first: list[str], second: list[str]) -> None:
    left, right = (grid.ravel() for grid in np.indices((len(first), len(second))))
    expected = [levenshtein(a, b) for a in first for b in second]
    assert edit_distances(first, second, left, right).tolist() == expected


def warped(heard: list[str], denoised: list[str]) -> float:
    """The cost of the cheapest path, by the definition."""
    total = {(-1, -1): 0.0}
    for i, j in itertools.product(range(len(heard)), range(len(denoised))):
        steps = [total.get(step, np.inf) for step in ((i - 1, j - 1), (i - 1, j), (i, j - 1))]
        total[i, j] = min(steps) + levenshtein(heard[i], denoised[j])
    return total[len(heard) - 1, len(denoised) - 1]


@settings(max_examples=50, deadline=None)
@given(heard=WORDS, denoised=WORDS)
def test_alignments_are_in_order_and_no_dearer_than_the_path(heard: list[str], denoised: list[str]) -> None:
    places = align_words(heard, denoised)
    assert len(places) == len(denoised) and places == sorted(places)
    assert all(0 <= place < len(heard) for place in places)
    attached = sum(levenshtein(heard[place], word) for place, word in zip(places, denoised, strict=True))
    assert attached <= warped(heard, denoised)


def test_alignment_by_hand() -> None:
    assert align_words(["i", "am", "here"], ["I", "am,", "um,", "here!"]) in ([0, 1, 1, 2], [0, 1, 2, 2])
    assert align_words(["a"], ["x", "y"]) == [0, 0]
    assert align_words(["a", "b"], []) == []
    assert align_words(["x"], ["a"] * 500) == [0] * 500
    assert align_words(["x"] * 500, ["a"]) == [0]
    assert len(align_words(["x", "y"], ["a"] * 500)) == 500
    with pytest.raises(ValueError, match="no heard words"):
        align_words([], ["a"])


def test_a_long_transcript_is_aligned_within_its_band() -> None:
    rng = np.random.default_rng(0)
    heard = ["".join(rng.choice(list("abcdefgh"), 5)) for _ in range(1500)]
    kept = np.flatnonzero(rng.random(1500) > 0.03)
    places = align_words(heard, [heard[number].capitalize() for number in kept])
    assert np.mean(np.array(places) == kept) > 0.95
