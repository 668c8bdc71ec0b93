"""Decoding: beam search against all sequences there are, batches against single rows, and what each option does."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.modules.decoding import DecodingOptions, Hypothesis, decode, read_decoding_options
from mmpt.utils.errors import ConfigError
from mmpt.utils.seeds import item_generator

END = 0


class Table:
    """A model whose next word depends on all words so far, by a table of random numbers of each row; it is the state.

    ``scores`` (N, V) of a text are those of the generator seeded with the row's number and the text.
    """

    def __init__(self, rows: int, words: int, sharpness: float = 2.0, first: int = 0) -> None:
        self.words, self.sharpness = words, sharpness
        self.texts: list[tuple[int, ...]] = [(first + row,) for row in range(rows)]
        self.tokens = 0
        self.calls = 0

    def scores(self, text: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng([7, *text])
        return self.sharpness * rng.standard_normal(self.words)

    def step(self, last: torch.Tensor, state: "Table") -> torch.Tensor:
        assert state is self and len(last) == len(self.texts)
        self.calls, self.tokens = self.calls + 1, self.tokens + len(last)
        self.texts = [(*text, int(token)) for text, token in zip(self.texts, last, strict=True)]
        return torch.tensor(np.stack([self.scores(text) for text in self.texts]), dtype=torch.float32)

    def select(self, rows: torch.Tensor) -> None:
        self.texts = [self.texts[row] for row in rows.tolist()]


START = 1


def run(rows: int, words: int, max_tokens: int, table: Table | None = None, rngs=None, **options) -> list[Hypothesis]:
    table = table or Table(rows, words)
    start = torch.full((rows,), START)
    return decode(table.step, table, start, DecodingOptions(**options), end=END, max_tokens=max_tokens, rngs=rngs)


def log_probability(table: Table, row: int, text: tuple[int, ...]) -> float:
    total = 0.0
    for position, word in enumerate(text):
        scores = table.scores((row, START, *text[:position]))
        total += scores[word] - math.log(np.exp(scores).sum())
    return total


def all_texts(words: int, max_tokens: int) -> list[tuple[int, ...]]:
    """Every text that ends, and every one that is cut at ``max_tokens``."""
    others = [word for word in range(words) if word != END]
    texts = [(*body, END) for length in range(max_tokens) for body in itertools.product(others, repeat=length)]
    return texts + list(itertools.product(others, repeat=max_tokens))


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, 0.5, -1.0])
@pytest.mark.parametrize(("words", "max_tokens"), [(3, 4), (4, 3), (2, 5)])
def test_with_enough_beams_the_best_of_all_texts_is_found(words: int, max_tokens: int, penalty: float) -> None:
    rows = 4
    table = Table(rows, words)
    found = run(rows, words, max_tokens, num_beams=(words - 1) ** max_tokens + words, length_penalty=penalty)
    for row, hypothesis in enumerate(found):
        scored = {
            text: log_probability(table, row, text) / len(text) ** penalty for text in all_texts(words, max_tokens)
        }
        best = max(scored, key=scored.__getitem__)
        assert hypothesis.finished == (best[-1] == END)
        assert tuple(hypothesis.ids) == (best[:-1] if hypothesis.finished else best)
        assert hypothesis.score == pytest.approx(scored[best], abs=1e-4)


def test_the_penalty_chooses_between_short_and_long() -> None:
    lengths = {
        penalty: np.mean([len(text.ids) for text in run(12, 4, 4, num_beams=90, length_penalty=penalty)])
        for penalty in (-2.0, 0.0, 2.0)
    }
    assert lengths[-2.0] <= lengths[0.0] < lengths[2.0]


def plain_beam_search(table: Table, row: int, beams: int, max_tokens: int, penalty: float) -> tuple[list[int], float]:
    """Search with lists, to the end, for the same definition: the likeliest 2 K continuations of each step."""
    running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for length in range(1, max_tokens + 1):
        grown = []
        for total, text in running:
            scores = table.scores((row, START, *text))
            logs = scores - math.log(np.exp(scores).sum())
            grown += [(total + logs[word], (*text, word)) for word in range(table.words)]
        grown = sorted(grown, reverse=True)[: 2 * beams]
        finished += [(total / length**penalty, text[:-1]) for total, text in grown[:beams] if text[-1] == END]
        running = [(total, text) for total, text in grown if text[-1] != END][:beams]
    finished += [(total / max_tokens**penalty, text) for total, text in running]
    score, text = max(finished)
    return list(text), score


@settings(max_examples=25, deadline=None)
@given(
    beams=st.integers(2, 6),
    words=st.integers(2, 7),
    max_tokens=st.integers(1, 7),
    penalty=st.sampled_from([0.0, 1.0, 1.7, -0.5]),
)
def test_narrow_search_equals_a_plain_one(beams: int, words: int, max_tokens: int, penalty: float) -> None:
    found = run(5, words, max_tokens, num_beams=beams, length_penalty=penalty)
    table = Table(5, words)
    for row, hypothesis in enumerate(found):
        ids, score = plain_beam_search(table, row, beams, max_tokens, penalty)
        assert hypothesis.ids == ids and hypothesis.score == pytest.approx(score, abs=1e-4)


def test_greedy_takes_the_likeliest_word_until_the_end() -> None:
    table = Table(6, 5)
    for row, hypothesis in enumerate(run(6, 5, 8)):
        text: tuple[int, ...] = ()
        while len(text) < 8 and END not in text:
            text = (*text, int(table.scores((row, START, *text)).argmax()))
        assert hypothesis.finished == (END in text)
        assert hypothesis.ids == [word for word in text if word != END]
        assert hypothesis.score == pytest.approx(log_probability(table, row, text) / len(text), abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}, {"no_repeat_ngram_size": 2}])
def test_a_batch_gives_what_its_rows_give_alone(options: dict) -> None:
    rngs = [item_generator(5, 0, row) for row in range(6)]
    together = run(6, 5, 7, rngs=rngs, **options)
    for row, hypothesis in enumerate(together):
        alone = run(1, 5, 7, table=Table(1, 5, first=row), rngs=[item_generator(5, 0, row)], **options)
        assert alone[0].ids == hypothesis.ids and alone[0].score == pytest.approx(hypothesis.score, abs=1e-5)
    assert len({len(hypothesis.ids) for hypothesis in together}) > 1


def test_finished_rows_cost_nothing_and_hopeless_searches_end() -> None:
    table = Table(6, 5)
    lengths = [len(text.ids) + text.finished for text in run(6, 5, 7, table=table)]
    assert table.tokens == sum(lengths) and table.calls == max(lengths)
    sure = Table(2, 5)
    sure.scores = lambda text: np.array([9.0, 0, 0, 0, 0])  # type: ignore[method-assign]
    assert [text.ids for text in run(2, 5, 50, table=sure, num_beams=4, length_penalty=0.0)] == [[], []]
    assert sure.calls == 1


def test_early_stopping_ends_at_as_many_finished_texts_as_beams() -> None:
    calls = {}
    for early in (False, True):
        table = Table(8, 4, sharpness=0.3)
        run(8, 4, 30, table=table, num_beams=3, early_stopping=early, length_penalty=2.0)
        calls[early] = table.calls
    assert calls[True] < calls[False] == 30


def test_sampling_draws_from_the_models_distribution_and_repeats_by_seed() -> None:
    wanted = np.exp(Table(1, 4, sharpness=1.0).scores((0, START)))
    wanted /= wanted.sum()
    drawn = np.zeros(4)
    for seed in range(3000):
        (text,) = run(1, 4, 1, table=Table(1, 4, sharpness=1.0), rngs=[item_generator(seed, 0, 0)], do_sample=True)
        drawn[text.ids[0] if text.ids else END] += 1
    assert np.abs(drawn / 3000 - wanted).max() < 4 * 0.5 / math.sqrt(3000)
    texts = [[text.ids for text in run(9, 6, 9, do_sample=True, seed=seed)] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_top_k_top_p_and_temperature_narrow_what_is_drawn() -> None:
    pytest.importorskip("transformers")
    greedy = [text.ids for text in run(9, 6, 9)]
    for options in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        assert [text.ids for text in run(9, 6, 9, do_sample=True, **options)] == greedy
    first = {
        tuple(run(1, 6, 1, rngs=[item_generator(seed, 0, 0)], do_sample=True, top_k=2)[0].ids) for seed in range(60)
    }
    assert len(first) == 2
    # Without sampling they change nothing.
    assert [text.ids for text in run(9, 6, 9, top_k=2, temperature=5.0)] == greedy


@pytest.mark.parametrize("beams", [1, 4])
def test_no_sequence_of_words_repeats_where_that_is_asked_for(beams: int) -> None:
    pytest.importorskip("transformers")

    def pairs(texts: list[Hypothesis]) -> list[list[tuple[int, int]]]:
        return [list(itertools.pairwise(text.ids)) for text in texts]

    options = {"num_beams": beams, "min_length": 12, "length_penalty": 0.0}
    free, bound = (run(8, 3, 14, no_repeat_ngram_size=size, num_beams=beams) for size in (0, 2))
    assert all(len(set(one)) == len(one) for one in pairs(bound))
    assert any(len(set(one)) < len(one) for one in pairs(run(8, 3, 14, **options)))
    assert [text.ids for text in free] != [text.ids for text in bound]


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}])
def test_texts_have_the_length_that_is_asked_for(options: dict) -> None:
    for text in run(8, 3, 6, min_length=4, **options):
        assert 4 <= len(text.ids) <= 6 and (text.finished or len(text.ids) == 6)
    assert all(len(text.ids) == 1 for text in run(4, 3, 1, min_length=1, **options))


def test_nothing_to_generate_gives_empty_texts() -> None:
    assert run(0, 3, 5) == []
    assert [text.ids for text in run(2, 3, 0, num_beams=2)] == [[], []]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"num_beam": 5}, r"gen_param\.num_beam: unknown key.*'num_beams'"),
        ({"num_beams": 0}, r"gen_param\.num_beams: must be at least 1, not 0"),
        ({"num_beams": 2, "do_sample": True}, r"gen_param\.do_sample: draws single texts: set num_beams: 1, not 2"),
        ({"temperature": 0.0}, r"gen_param\.temperature: must be positive"),
        ({"top_p": 1.5}, r"gen_param\.top_p: must be above 0"),
        ({"top_k": -1}, r"gen_param\.top_k"),
        ({"length_penalty": math.nan}, r"gen_param\.length_penalty"),
        ({"num_beams": "many"}, "num_beams"),
    ],
)
def test_wrong_keys_and_values_are_named(section: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_decoding_options(section)


def test_options_of_a_config_and_none() -> None:
    assert read_decoding_options(None) == DecodingOptions()
    assert read_decoding_options({"num_beams": 5, "length_penalty": 2}).length_penalty == 2.0
