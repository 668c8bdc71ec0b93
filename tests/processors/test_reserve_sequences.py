"""Sequences of MERLOT Reserve: those of the published loader where its draws are known, and what holds of all."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.modules.reserve_tokens import AUDIO_TOKENS, AUDIOSPAN, END, LTOVPOOL, MASK, MASKAUDIO, PAD, START
from mmpt.processors import reserve_sequences
from mmpt.processors.reserve_sequences import (
    Part,
    audio_to_text,
    fill_spans,
    join_parts,
    matching,
    text_to_audio,
)
from mmpt.processors.reserve_spans import (
    Words,
    assign_targets,
    block_starts,
    choose_targets,
    locate_words,
)

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "data" / "reserve_sequences.npz")


def golden_record(number):
    """Return a record of the published synthetic file: four segments, the last of another video."""
    counts = GOLDEN["counts"].ravel()
    ends = np.cumsum(counts)
    own = [slice(ends[k] - counts[k], ends[k]) for k in range(4 * number, 4 * number + 4)]
    return SimpleNamespace(
        sources=np.array([0, 0, 0, 1]),
        times=lambda n: (5.0 * n, 5.0 * n + 5),
        speed=lambda n: 1.0,
        tokens=lambda n: GOLDEN["words"][own[n]],
        token_times=lambda n: GOLDEN["times"][own[n]],
    )


def golden_targets(number, kind):
    """Return the subsegments that the published loader drew, and its spans."""
    asked = GOLDEN[f"dl/{kind}/text_ptr"][number] >= 0
    spans = GOLDEN[f"dl/{kind}/text_ptr"][number][asked]
    first = spans.min()
    return np.unique(GOLDEN[f"dl/{kind}/audio_ptr"][number][asked]), GOLDEN["dl/text_spans"][number][first : first + 3]


def same(layout, number, kind, group):
    for array, name in zip(layout, ("", "/audio_ptr", "/text_ptr"), strict=True):
        np.testing.assert_array_equal(array, GOLDEN[f"dl/{kind}{name}"][number][group])


@pytest.mark.parametrize("number", range(3))
def test_text2audio_is_the_published_one(number):
    words = locate_words(golden_record(number), GOLDEN["starts"][number])
    targets, spans = golden_targets(number, "text2audio")
    owner = assign_targets(words, targets, grow=True)
    np.testing.assert_array_equal(fill_spans([words.ids[owner == k] for k in range(3)], 15), spans)
    for group in range(2):
        parts = text_to_audio(words, owner, targets, range(6 * group, 6 * group + 6))
        same(join_parts(np.random.default_rng(0), parts, 64), number, "text2audio", group)


@pytest.mark.parametrize("number", range(3))
def test_audio2text_is_the_published_one(number, monkeypatch):
    """Which subsegments are shown as words is drawn: the golden says it."""
    words = locate_words(golden_record(number), GOLDEN["starts"][number])
    targets, spans = golden_targets(number, "audio2text")
    owner = assign_targets(words, targets)
    np.testing.assert_array_equal(fill_spans([words.ids[owner == k] for k in range(3)], 15), spans)
    monkeypatch.setattr(reserve_sequences, "_ADJACENT_TEXT", 0.5)
    for group in range(2):
        sound = GOLDEN["dl/audio2text/audio_ptr"][number][group][GOLDEN["dl/audio2text"][number][group] == AUDIOSPAN]
        own = range(6 * group, 6 * group + 6)
        drawn = SimpleNamespace(random=lambda n, own=own, sound=sound: np.array([float(k in sound) for k in own]))
        parts = audio_to_text(drawn, words, owner, targets, own, 3)
        same(join_parts(np.random.default_rng(0), parts, 64), number, "audio2text", group)


def test_matching_is_the_published_one():
    words = locate_words(golden_record(0), GOLDEN["starts"][0])
    known = [START, 3388, 35, 100, 101, START, 2026, 35, 103, 104, 105, START, 10884, 35, 102, END]
    layout = join_parts(np.random.default_rng(0), matching(words, known, False, 160), 160)
    same(layout, 0, "audio_text_matching", 0)
    as_text = join_parts(np.random.default_rng(0), matching(words, known, True, 160), 160)
    assert as_text.tokens[as_text.tokens >= 10].tolist() == [k for k in known if k >= 10] + words.ids.tolist()
    assert (as_text.tokens == LTOVPOOL).sum() == 4


def words_of(counts, sources=None):
    """Return words, so many in each subsegment, evenly over its sound."""
    counts = np.asarray(counts)
    subsegments = np.repeat(np.arange(len(counts)), counts)
    blocks = np.stack([1.66 * np.arange(len(counts)), 1.66 * np.arange(len(counts)) + 1.6], axis=1)
    places = np.concatenate([(np.arange(n) + 0.5) / n for n in counts] or [np.zeros(0)])
    middles = blocks[subsegments, 0] + 1.6 * places
    given_sources = np.zeros(len(counts), np.int64) if sources is None else np.repeat(sources, 3)
    return Words(100 + np.arange(counts.sum()), middles, subsegments, given_sources, blocks)


def test_a_target_without_words_takes_the_nearer_neighbour():
    words = words_of([2, 0, 3])
    assert assign_targets(words, np.array([1])).tolist() == [-1, -1, 0, -1, -1]  # 0.27 s from its sound, not 0.4 s
    assert assign_targets(words, np.array([1, 2])).tolist() == [-1, 0, 1, 1, 1]  # another target keeps its words
    assert assign_targets(words_of([2, 0, 0, 1, 2, 2]), np.array([1, 2])).tolist() == [-1, 0, 1, -1, -1, -1, -1]
    other = words_of([1, 0, 0, 2, 1, 1], sources=[0, 1])
    assert assign_targets(other, np.array([2])).tolist() == [-1] * 5  # of another video


def test_targets_grow_by_what_is_heard_with_them_and_by_no_more():
    words = words_of([8, 3, 8])._replace(middles=np.concatenate([np.linspace(0.1, 1.59, 8), [2, 2.5, 3], [3.3] * 8]))
    assert assign_targets(words, np.array([1]), grow=True).tolist() == [-1] * 7 + [0] * 5 + [-1] * 7
    assert assign_targets(words, np.array([1])).tolist() == [-1] * 8 + [0] * 3 + [-1] * 8


def test_blocks_of_sound():
    assert block_starts(2).tolist() == [[2, 64, 126]] * 2
    drawn = block_starts(4000, np.random.default_rng(0))
    gaps = np.diff(np.concatenate([np.zeros((4000, 1)), drawn - 60 * np.arange(3), np.full((4000, 1), 8)], 1))
    assert gaps.min() == 0 and (gaps.sum(1) == 8).all() and abs(gaps.mean(0) - 2).max() < 0.1


def test_targets_are_drawn_evenly_and_twice_a_quarter():
    rng, hits = np.random.default_rng(0), np.zeros((2, 48))
    for _ in range(2000):
        drawn = choose_targets(rng, 48, 0.25)
        assert [len(one) for one in drawn] == [12, 12] and not set(drawn[0]) & set(drawn[1])
        for kind, one in enumerate(drawn):
            hits[kind, one] += 1
    assert abs(hits / 2000 - 0.25).max() < 0.05


def test_sound_beside_a_target_is_mostly_shown_as_words():
    words, rng = words_of([2] * 12), np.random.default_rng(0)
    shown = []
    for _ in range(500):
        parts = audio_to_text(rng, words, np.full(24, -1), np.array([4, 6]), range(12), 0)
        assert {part.audio for part in parts if not part.whole and not part.kept} <= {3, 5, 7}
        shown += [not part.whole for part in parts if part.audio in (3, 5, 7)]
    assert abs(np.mean(shown) - 0.8) < 0.04


def parts_strategy():
    mask = st.integers(0, 9).map(lambda k: Part(np.array([MASK, MASKAUDIO]), k, k, kept=True))
    words = st.integers(0, 9).map(lambda n: Part(np.arange(10, 10 + n), n))
    sound = st.integers(0, 9).map(lambda k: Part(np.full(AUDIO_TOKENS, AUDIOSPAN), k, whole=True))
    return st.lists(mask | words | sound, max_size=14)


@settings(max_examples=200, deadline=None)
@given(parts_strategy(), st.integers(28, 60), st.integers(0, 9))
def test_joined_parts_are_no_longer_than_they_may_and_keep_every_mask(parts, length, seed):
    layout = join_parts(np.random.default_rng(seed), parts, length)
    assert all(array.shape == (length,) and array.dtype == np.int64 for array in layout)
    masks = [(part.audio, part.text) for part in parts if part.kept]
    kept = layout.tokens == MASK
    assert list(zip(layout.audio_ptr[kept], layout.text_ptr[kept], strict=True)) == masks
    filled = layout.tokens != PAD
    assert (layout.audio_ptr[~filled] == -1).all() and (layout.text_ptr[~filled] == -1).all()
    assert not filled[filled.argmin() :].any() or filled.all()
    whole = sum(len(part.tokens) for part in parts) <= length
    assert not whole or filled.sum() == sum(len(part.tokens) for part in parts)
    runs = np.flatnonzero(np.diff(np.concatenate([[0], layout.tokens == AUDIOSPAN, [0]]).astype(int)))
    assert all((end - begin) % AUDIO_TOKENS == 0 for begin, end in runs.reshape(-1, 2))


def test_ends_are_cut_before_anything_between_masks():
    parts = [Part(np.arange(10, 20), 0), Part(np.array([MASK]), 1, 0, kept=True), Part(np.arange(20, 25), 2)]
    parts += [Part(np.array([MASK]), 3, 1, kept=True), Part(np.arange(30, 40), 4)]
    starts = set()
    for seed in range(40):
        tokens = join_parts(np.random.default_rng(seed), parts, 17).tokens.tolist()
        assert tokens[tokens.index(MASK) :][:7] == [MASK, *range(20, 25), MASK]
        left, right = tokens[: tokens.index(MASK)], tokens[len(tokens) - tokens[::-1].index(MASK) :]
        assert left == list(range(20 - len(left), 20)) and right == list(range(30, 30 + len(right)))
        assert len(tokens) == 17 == len(left) + len(right) + 7
        starts.add(len(left))
    assert len(starts) > 5
    assert join_parts(np.random.default_rng(0), parts, 6).tokens.tolist() == [MASK, MASK, 0, 0, 0, 0]


def test_what_is_known_of_a_video_gives_way_to_its_segments():
    words = words_of([2] * 6)
    parts = matching(words, [START, *range(50, 90), END], True, 30)
    tokens = join_parts(np.random.default_rng(0), parts, 30).tokens
    assert tokens[0] == START and (tokens == END).sum() == 1 and (tokens == LTOVPOOL).sum() == 2 and (tokens > 0).all()
    assert set(words.ids) <= set(tokens.tolist())
    assert not len(matching(words, [START, 50, END], True, 14)[0].tokens)
