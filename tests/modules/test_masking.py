"""Masking: which positions may be chosen, how often, and what becomes of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.modules.masking import (
    IGNORED,
    TEXT_MODES,
    draw_modes,
    mask_frames,
    mask_text,
    mask_tokens,
    maskable,
    mode_probabilities,
    shift_for_generation,
)
from mmpt.utils.tokenizers import SpecialIds

IDS = SpecialIds(cls=2, sep=3, pad=0, mask=4)
VOCABULARY = 64


def captions(rng: np.random.Generator, count: int, length: int = 16) -> np.ndarray:
    """Texts of 0 to length - 3 words, in the layout of ``caps``."""
    caps = np.full((count, length), IDS.pad, dtype=np.int64)
    caps[:, 0], caps[:, 1] = IDS.cls, IDS.sep
    for row, words in zip(caps, rng.integers(0, length - 2, count), strict=True):
        row[2 : 2 + words] = rng.integers(5, VOCABULARY, words)
        row[2 + words] = IDS.sep
    return caps


def near(share: float, probability: float, draws: int) -> bool:
    """Five standard deviations: wrong once in two million."""
    return abs(share - probability) < 5 * math.sqrt(probability * (1 - probability) / draws)


def test_bert_rule_has_its_shares() -> None:
    rng = np.random.default_rng(0)
    size = (2000, 200)
    tokens = rng.integers(5, VOCABULARY, size)
    masked, selected = mask_tokens(rng, tokens, np.ones(size, bool), 0.15, IDS.mask, VOCABULARY)
    assert near(selected.mean(), 0.15, tokens.size)
    count = int(selected.sum())
    became_mask, same = masked[selected] == IDS.mask, masked[selected] == tokens[selected]
    # A random id is [MASK], or the word itself, once in 64 times.
    assert near(became_mask.mean(), 0.8 + 0.1 / VOCABULARY, count)
    assert near(same.mean(), 0.1 + 0.1 / VOCABULARY, count)
    assert np.array_equal(masked[~selected], tokens[~selected])
    # The random ids are uniform over the whole vocabulary: none is left out, the specials neither.
    other = np.bincount(masked[selected][~became_mask & ~same], minlength=VOCABULARY)
    expected = count * 0.1 / VOCABULARY
    assert other[IDS.mask] == 0 and (np.delete(other, IDS.mask) > 0.6 * expected).all()
    assert (other < 1.4 * expected).all()


def test_selection_says_nothing_about_what_becomes_of_a_token_at_any_probability() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.integers(5, VOCABULARY, (3, 60_000))
    shares = np.array([0.15, 0.85, 1.0])
    masked, selected = mask_tokens(rng, tokens, np.ones(tokens.shape, bool), shares, IDS.mask, VOCABULARY)
    for row, share in enumerate(shares):
        count = int(selected[row].sum())
        assert near(count / 60_000, share, 60_000) or (share == 1.0 and count == 60_000)
        assert near((masked[row][selected[row]] == IDS.mask).mean(), 0.8 + 0.1 / VOCABULARY, count)


def test_positions_are_selected_independently() -> None:
    rng = np.random.default_rng(2)
    tokens = np.full((40_000, 2), 9)
    _, selected = mask_tokens(rng, tokens, np.ones(tokens.shape, bool), 0.3, IDS.mask, VOCABULARY)
    assert near((selected[:, 0] & selected[:, 1]).mean(), 0.09, 40_000)
    assert near((selected[:-1, 0] & selected[1:, 0]).mean(), 0.09, 40_000)


def test_frames_are_valid_ones_with_their_probability() -> None:
    rng = np.random.default_rng(3)
    vmasks = np.arange(32) < rng.integers(1, 33, 5000)[:, None]
    shares = np.repeat([0.15, 1.0], 2500)
    label = mask_frames(rng, vmasks, shares)
    assert label.dtype == bool and not (label & ~vmasks).any()
    assert near(label[:2500][vmasks[:2500]].mean(), 0.15, int(vmasks[:2500].sum()))
    assert np.array_equal(label[2500:], vmasks[2500:])
    assert not mask_frames(rng, vmasks, 0.0).any()


@pytest.mark.parametrize("mm_prob", [0.0, 0.5, 0.8, 1.0])
def test_modes_are_mixed_as_published(mm_prob: float) -> None:
    count = 60_000
    text, video = draw_modes(np.random.default_rng(4), count, mm_prob)
    pairs = list(zip(text, video, strict=True))
    assert set(pairs) <= {("normal", "normal"), ("full", "no"), ("no", "full")}
    for pair, share in (
        (("normal", "normal"), 1 - mm_prob),
        (("full", "no"), mm_prob / 2),
        (("no", "full"), mm_prob / 2),
    ):
        assert abs(pairs.count(pair) / count - share) < 5 * math.sqrt(max(share * (1 - share), 1e-9) / count)
    text, video = draw_modes(np.random.default_rng(4), 1000, 1.0, "inverse")
    assert set(zip(text, video, strict=True)) == {("inverse", "no"), ("no", "full")}


def test_probabilities_of_the_modes() -> None:
    assert mode_probabilities(TEXT_MODES, 0.25).tolist() == [0.25, 1.0, 0.0, 0.75, 0.25, 0.0, 0.25]
    with pytest.raises(ValueError, match="'some' is none of normal, full"):
        mode_probabilities(["normal", "some"], 0.15)


def test_full_and_no_select_every_word_or_none() -> None:
    rng = np.random.default_rng(5)
    caps = captions(rng, 40)
    _, labels = mask_text(rng, caps, ["full"] * 40, 0.15, IDS, VOCABULARY)
    words = maskable(caps, IDS)
    assert np.array_equal(labels, np.where(words, caps, IGNORED))
    masked, labels = mask_text(rng, caps, ["no"] * 40, 0.15, IDS, VOCABULARY)
    assert np.array_equal(masked, caps) and (labels == IGNORED).all()


def test_mode_mask_corrupts_without_labels_and_inverse_selects_the_rest() -> None:
    rng = np.random.default_rng(6)
    caps = captions(rng, 4000)
    words = maskable(caps, IDS)
    masked, labels = mask_text(rng, caps, ["mask"] * 4000, 0.2, IDS, VOCABULARY)
    assert (labels == IGNORED).all()
    changed = 0.2 * 0.9 * (1 - 0.1 / 0.9 / VOCABULARY)
    assert near((masked != caps)[words].mean(), changed, int(words.sum()))
    _, labels = mask_text(rng, caps, ["inverse"] * 4000, 0.2, IDS, VOCABULARY)
    assert near((labels != IGNORED)[words].mean(), 0.8, int(words.sum()))


def test_text_generation_by_a_worked_example() -> None:
    caps = np.array([[2, 3, 7, 8, 3, 0, 0], [2, 3, 7, 8, 9, 10, 3], [2, 3, 3, 0, 0, 0, 0]])
    inputs, labels = shift_for_generation(caps, IDS)
    none = IGNORED
    assert inputs.tolist() == [[2, 3, 2, 7, 8, 0, 0], [2, 3, 2, 7, 8, 9, 10], [2, 3, 2, 0, 0, 0, 0]]
    assert labels.tolist() == [
        [none, none, 7, 8, 3, none, none],
        [none, none, 7, 8, 9, 10, 3],
        [none, none, 3, none, none, none, none],
    ]
    # One text alone, as an aligner has it, and inputs as before.
    assert shift_for_generation(caps[0], IDS)[0].tolist() == inputs[0].tolist()
    assert caps[0].tolist() == [2, 3, 7, 8, 3, 0, 0]


def test_generated_rows_may_be_corrupted_but_never_their_labels() -> None:
    rng = np.random.default_rng(7)
    caps = captions(rng, 600)
    inputs, labels = shift_for_generation(caps, IDS)
    for mode, changes in (("textgen", False), ("textgen_mask", True)):
        masked, text_label = mask_text(rng, caps, [mode] * 600, 0.5, IDS, VOCABULARY)
        assert np.array_equal(text_label, labels)
        assert (masked != inputs).any() == changes
        assert np.array_equal(masked[~maskable(inputs, IDS)], inputs[~maskable(inputs, IDS)])


@settings(max_examples=80, deadline=None)
@given(
    modes=st.lists(st.sampled_from(TEXT_MODES), min_size=1, max_size=12),
    length=st.integers(4, 20),
    probability=st.floats(0, 1),
    seed=st.integers(0, 10_000),
)
def test_whatever_the_mode(modes: list, length: int, probability: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    caps = captions(rng, len(modes), length)
    before = caps.copy()
    masked, labels = mask_text(rng, caps, modes, probability, IDS, VOCABULARY)
    assert np.array_equal(caps, before), "the input is left alone"
    assert masked.dtype == labels.dtype == np.int64 and masked.shape == labels.shape == caps.shape
    assert masked.min() >= 0 and masked.max() < VOCABULARY
    shifted, _ = shift_for_generation(caps, IDS)
    for row, mode in enumerate(modes):
        generated = mode.startswith("textgen")
        inputs = shifted[row] if generated else caps[row]
        words = maskable(inputs, IDS)
        labelled = labels[row] != IGNORED
        assert np.array_equal(labels[row][labelled], caps[row][labelled]), "labels are the original words"
        assert np.array_equal(masked[row][~words], inputs[~words]), "specials and padding stay"
        assert not labelled[caps[row] == IDS.pad].any() and not labelled[:2].any()
        if not generated:
            assert not labelled[~words].any()
            assert mode == "mask" or np.array_equal(masked[row][~labelled], caps[row][~labelled])


def test_each_row_is_masked_as_its_mode_alone_says() -> None:
    rng = np.random.default_rng(8)
    caps = np.repeat(captions(rng, 1, 64) * 0 + 9, 6000, axis=0)  # words only
    modes = ["normal", "full", "no", "inverse", "mask", "textgen"] * 1000
    _, labels = mask_text(rng, caps, modes, 0.15, IDS, VOCABULARY)
    shares = (labels != IGNORED).reshape(1000, 6, 64).mean(axis=(0, 2))
    assert near(shares[0], 0.15, 64_000) and near(shares[3], 0.85, 64_000)
    assert shares[[1, 2, 4]].tolist() == [1.0, 0.0, 0.0] and shares[5] == 62 / 64


def test_equal_generators_give_equal_masks() -> None:
    caps = captions(np.random.default_rng(9), 30)
    modes = draw_modes(np.random.default_rng(9), 30, 0.5)[0]
    one, same, other = (mask_text(np.random.default_rng(s), caps, modes, 0.15, IDS, VOCABULARY)[0] for s in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
