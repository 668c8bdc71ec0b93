"""Random text of MERLOT Reserve: the published layout, lengths of spans, what may be asked for, and a user's files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_samples import published_files, write_tokenizers

from mmpt.modules.reserve_tokens import MASK, PAD
from mmpt.processors.random_text import (
    SPAN_LENGTHS,
    IdText,
    MaskedText,
    TextFiles,
    allowed_tokens,
    mask_spans,
    open_random_text,
    unmasked_length,
)
from mmpt.processors.reserve_sequences import Layout
from mmpt.utils.errors import DataError
from mmpt.utils.shardedtensor import ShardedTensor
from mmpt.utils.subwords import load_subwords

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "data" / "reserve_sequences.npz")
PUBLISHED = published_files() / "reserve"


class Long:
    """Ids that count upwards from 100."""

    def __init__(self, total=10**6):
        self.ids = 100 + np.arange(total)

    def sample(self, rng, count):
        first = int(rng.integers(max(len(self.ids) - count, 0) + 1))
        return self.ids[first : first + count]


EVERY = np.ones(10**6 + 100, bool)


def restored(masked, first_span):
    """Return the text with its spans in the place of their masks."""
    tokens, _, text = masked.layout
    pieces = [masked.spans[p - first_span] if p >= 0 else [t] for t, p in zip(tokens, text, strict=True) if t != PAD]
    return np.concatenate(pieces)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    write_tokenizers(folder)
    return str(folder / "reserve.json")


def test_the_published_items_have_this_layout():
    """The golden's text is one piece of the record's, in so many spans, its masks numbered on from the targets'."""
    for number in range(3):
        tokens = GOLDEN["dl/random_text"][number][0]
        audio, text = (GOLDEN[f"dl/random_text/{name}_ptr"][number][0] for name in ("audio", "text"))
        assert text[text >= 0].tolist() == list(range(6, 12)) and (tokens[text >= 0] == MASK).all()
        assert set(np.diff(audio).tolist()) == {0, 1}
        spans = [span[span > 0] for span in GOLDEN["dl/text_spans"][number][6:]]
        text = restored(MaskedText(Layout(tokens, audio, text), spans), 6)
        source = GOLDEN["random_text"][number]
        assert any((source[k : k + len(text)] == text).all() for k in range(len(source) - len(text) + 1))
    rng = np.random.default_rng(0)
    for _ in range(20):
        masked = mask_spans(rng, Long(), 160, 6, 6, EVERY)
        tokens, audio, text = masked.layout
        assert text[text >= 0].tolist() == list(range(6, 12)) and (tokens[text >= 0] == MASK).all()
        assert set(np.diff(audio).tolist()) == {0, 1} and (tokens != PAD).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2000), st.integers(20, 200), st.integers(0, 18), st.integers(0, 99))
def test_text_is_one_piece_with_masks_for_spans(total, length, budget, seed):
    masked = mask_spans(np.random.default_rng(seed), Long(total), length, budget, 5, EVERY)
    assert len(masked.spans) == budget and all(array.shape == (length,) for array in masked.layout)
    asked = masked.layout.text_ptr[masked.layout.text_ptr >= 0]
    assert asked.tolist() == list(range(5, 5 + len(asked))) and len(asked) <= budget
    assert all(len(span) for span in masked.spans[: len(asked)]) and not any(map(len, masked.spans[len(asked) :]))
    text = restored(masked, 5)
    assert (np.diff(text) > 0).all()
    if total > 600 and 10 * budget <= length:
        assert len(asked) == budget and (masked.layout.tokens != PAD).all()
    if total <= length:  # all of a text is there that fits without masks; of a longer one spans are left out whole
        assert len(text) == total


def test_lengths_of_spans_and_of_what_is_cut_into_them():
    assert SPAN_LENGTHS.sum() == pytest.approx(1, abs=1e-3)
    assert unmasked_length(640, 38) == 640 + 163 and unmasked_length(160, 6) == 160 + 25
    rng = np.random.default_rng(0)
    lengths = [len(span) for _ in range(120) for span in mask_spans(rng, Long(), 640, 38, 24, EVERY).spans]
    counts = np.bincount(lengths, minlength=16) / len(lengths)
    assert counts[0] == 0 and len(counts) == 16 and abs(counts[1:] - SPAN_LENGTHS).max() < 0.02
    assert np.mean(lengths) == pytest.approx(6.23, abs=0.15)


def test_tokens_that_are_not_allowed_are_masked_but_not_asked_for():
    allowed, rng = EVERY.copy(), np.random.default_rng(0)
    allowed[::40] = False
    chosen = clean = 0
    for _ in range(100):
        masked = mask_spans(rng, Long(), 400, 10, 0, allowed)
        tokens, _, text = masked.layout
        assert allowed[np.concatenate(masked.spans)].all()
        for place in np.flatnonzero(text >= 0):
            before = tokens[place - 1] + 1 if place and text[place - 1] < 0 else None
            behind = tokens[place + 1] - 1 if place + 1 < len(tokens) and text[place + 1] < 0 else None
            if before is not None and behind is not None:
                chosen += 1
                clean += allowed[before : behind + 1].all()
    assert clean / chosen > 0.9  # about 0.97 where one of seven spans holds such a token and weighs a fifth


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tokenizer is not here")
def test_allowed_tokens_are_the_published_ones():
    wanted = np.load(PUBLISHED / "token_is_valid.npy")
    np.testing.assert_array_equal(allowed_tokens(str(PUBLISHED / "lowercase_encoder.json")), wanted)


def test_allowed_bytes(tokenizer):
    allowed, subwords = allowed_tokens(tokenizer), load_subwords(tokenizer)
    assert {subwords.decode([k]) for k in np.flatnonzero(allowed)} == set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'"
    )


def test_text_files(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("Été alpha beta " * 500, encoding="utf-8")
    (tmp_path / "b.txt").write_text("one two <|MASK|> three")
    (tmp_path / "empty.txt").write_text("")
    text, subwords = open_random_text(str(tmp_path / "*.txt"), tokenizer), load_subwords(tokenizer)
    assert isinstance(text, TextFiles) and len(text.paths) == 3
    seen = set()
    for seed in range(200):
        ids = text.sample(np.random.default_rng(seed), 30)
        words = subwords.decode(ids).split()
        seen |= set(words[:-1])  # the last may be cut to the length
        assert len(ids) <= 30
    assert seen <= {"ete", "alpha", "beta", "one", "two", "three"} and {"ete", "alpha", "beta"} <= seen
    assert len(open_random_text([str(tmp_path / "b.txt")], tokenizer).sample(np.random.default_rng(0), 99)) < 99


def test_ids_of_documents(tokenizer, tmp_path):
    ShardedTensor.from_list([np.arange(*ends, dtype=np.int32) for ends in ((10, 14), (14, 14), (14, 20))]).save(
        tmp_path / "text"
    )
    text = open_random_text(str(tmp_path / "text"), tokenizer)
    assert isinstance(text, IdText)
    firsts = set()
    for seed in range(60):
        ids = text.sample(np.random.default_rng(seed), 5)
        assert ids.tolist() == [10 + (ids[0] - 10 + k) % 10 for k in range(5)] and ids.dtype == np.int64
        firsts.add(int(ids[0]))
    assert firsts == set(range(10, 20)) and len(text.sample(np.random.default_rng(0), 50)) == 10
    too_small = np.ones(15, bool)
    with pytest.raises(DataError, match="none of the 15 of the tokenizer"):
        mask_spans(np.random.default_rng(0), text, 20, 2, 0, too_small)


def test_no_such_text(tokenizer, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match=r"dataset\.random_text_path: nothing is in"):
        open_random_text(str(tmp_path / "empty.txt"), tokenizer)
    with pytest.raises(DataError, match="no text file, and no ShardedTensor"):
        open_random_text(str(tmp_path / "none*"), tokenizer)
    ShardedTensor.from_list([np.zeros((2, 3), np.float32)]).save(tmp_path / "floats")
    with pytest.raises(DataError, match="no token ids, but float32"):
        open_random_text(str(tmp_path / "floats"), tokenizer)
