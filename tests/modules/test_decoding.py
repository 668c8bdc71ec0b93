"""Decoding: beam search against all sequences there are, batches against single rows, and what each option does."""

import dataclasses
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

    def __init__(
        self, rows: int, words: int, sharpness: float = 2.0, first: int = 0, seed: int = 7, end: float = 0.0
    ) -> None:
        self.words, self.sharpness, self.seed, self.end = words, sharpness, seed, end
        self.texts: list[tuple[int, ...]] = [(first + row,) for row in range(rows)]
        self.tokens = 0
        self.calls = 0

    def scores(self, text: tuple[int, ...]) -> np.ndarray:
        scores = self.sharpness * np.random.default_rng([self.seed, *text]).standard_normal(self.words)
        scores[END] += self.end
        return scores

    def log_probabilities(self, text: tuple[int, ...]) -> np.ndarray:
        scores = self.scores(text)
        return scores - math.log(np.exp(scores).sum())

    def step(self, last: torch.Tensor, state: "Table") -> torch.Tensor:
        assert state is self and len(last) == len(self.texts)
        self.calls, self.tokens = self.calls + 1, self.tokens + len(last)
        self.texts = [(*text, int(token)) for text, token in zip(self.texts, last, strict=True)]
        return torch.tensor(np.stack([self.scores(text) for text in self.texts]), dtype=torch.float32)

    def select(self, rows: torch.Tensor) -> None:
        self.texts = [self.texts[row] for row in rows.tolist()]


START = 1
PROMPT = 3


def run(
    rows: int, words: int, max_tokens: int, table: Table | None = None, rngs=None, prompt: int = PROMPT, **options
) -> list[Hypothesis]:
    table = table or Table(rows, words)
    bounds = {"end": END, "max_tokens": max_tokens, "prompt": prompt}
    return decode(table.step, table, torch.full((rows,), START), DecodingOptions(**options), **bounds, rngs=rngs)


def log_probability(table: Table, row: int, text: tuple[int, ...]) -> float:
    total = 0.0
    for position, word in enumerate(text):
        total += table.log_probabilities((row, START, *text[:position]))[word]
    return total


def all_texts(words: int, max_tokens: int) -> list[tuple[int, ...]]:
    """Every text that ends, and every one that is cut at ``max_tokens``."""
    others = [word for word in range(words) if word != END]
    texts = [(*body, END) for length in range(max_tokens) for body in itertools.product(others, repeat=length)]
    return texts + list(itertools.product(others, repeat=max_tokens))


@settings(max_examples=25, deadline=None)
@given(
    size=st.sampled_from([(3, 4), (4, 3), (2, 5), (5, 1)]),
    penalty=st.sampled_from([0.0, 1.0, 2.0, 0.5, -1.0]),
    prompt=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_with_enough_beams_the_best_of_all_texts_is_found(
    size: tuple[int, int], penalty: float, prompt: int, seed: int
) -> None:
    (words, max_tokens), rows = size, 3
    table = Table(rows, words, seed=seed)
    options = {"num_beams": (words - 1) ** max_tokens + words, "length_penalty": penalty, "early_stopping": "never"}
    for row, hypothesis in enumerate(run(rows, words, max_tokens, table=table, prompt=prompt, **options)):
        scored = {
            text: log_probability(table, row, text) / (prompt + sum(word != END for word in text)) ** penalty
            for text in all_texts(words, max_tokens)
        }
        best = max(scored, key=scored.__getitem__)
        assert hypothesis.finished == (best[-1] == END)
        assert tuple(hypothesis.ids) == (best[:-1] if hypothesis.finished else best)
        assert hypothesis.score == pytest.approx(scored[best], abs=1e-4)


def test_the_penalty_chooses_between_short_and_long() -> None:
    lengths = {
        penalty: np.mean(
            [len(text.ids) for text in run(12, 4, 4, num_beams=90, early_stopping="never", length_penalty=penalty)]
        )
        for penalty in (-2.0, 0.0, 2.0)
    }
    assert lengths[-2.0] <= lengths[0.0] < lengths[2.0]


def plain_beam_search(
    table: Table, row: int, beams: int, max_tokens: int, penalty: float, prompt: int, early_stopping: bool | str
) -> tuple[list[int], float, int]:
    """Search for one text with lists, as the published loop does; return it, its score and the steps that it took."""
    running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    pool: list[tuple[float, tuple[int, ...]]] = []

    def add(total: float, text: tuple[int, ...]) -> None:
        pool.append((total / (prompt + len(text)) ** penalty, text))
        if early_stopping != "never":  # which keeps all
            pool.sort()
            del pool[:-beams]

    for current in range(prompt, prompt + max_tokens):
        grown = [
            (total + log, (*text, word))
            for total, text in running
            for word, log in enumerate(table.log_probabilities((row, START, *text)))
        ]
        grown = sorted(grown, reverse=True)[: 2 * beams]
        for total, text in grown[:beams]:
            if text[-1] == END:
                add(total, text[:-1])
        running = [(total, text) for total, text in grown if text[-1] != END][:beams]
        enough = len(pool) >= beams and early_stopping != "never"
        if enough and (early_stopping or min(pool)[0] >= grown[0][0] / current**penalty):
            break
    else:
        for total, text in running:
            add(total, text)
    score, text = max(pool)
    return list(text), score, current - prompt + 1


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("beams", [1, 2, 3, 5])
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 999),
    max_tokens=st.integers(1, 8),
    penalty=st.sampled_from([0.0, 0.6, 1.0, 1.7, 3.0, -0.5]),
    prompt=st.integers(1, 4),
    end=st.sampled_from([0.0, 2.0]),
)
def test_search_equals_a_plain_one(
    beams: int, early_stopping: bool | str, seed: int, max_tokens: int, penalty: float, prompt: int, end: float
) -> None:
    rows, words = 3, 11  # at least 2 K words: the published loop has as many candidates
    table = Table(rows, words, seed=seed, end=end)
    options = {"num_beams": beams, "length_penalty": penalty, "early_stopping": early_stopping}
    found = run(rows, words, max_tokens, table=table, prompt=prompt, **options)
    asked = (beams, max_tokens, penalty, prompt, early_stopping)
    wanted = [plain_beam_search(table, row, *asked) for row in range(rows)]
    if beams == 1 and early_stopping == "never":  # greedy ends with its text
        wanted = [plain_beam_search(table, row, *asked[:-1], False) for row in range(rows)]
    assert [text.ids for text in found] == [ids for ids, _, _ in wanted]
    assert [text.score for text in found] == pytest.approx([score for _, score, _ in wanted], abs=1e-4)
    steps = max(number for _, _, number in wanted)
    assert table.calls <= steps if early_stopping == "never" else table.calls == steps


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -0.5])
def test_narrow_search_in_a_small_vocabulary_ends_at_the_best_of_its_texts(penalty: float) -> None:
    for words, beams in ((2, 3), (3, 4), (4, 3)):
        found = run(5, words, 6, num_beams=beams, length_penalty=penalty, early_stopping="never")
        for row, hypothesis in enumerate(found):
            ids, score, _ = plain_beam_search(Table(5, words), row, beams, 6, penalty, PROMPT, "never")
            assert hypothesis.ids == ids and hypothesis.score == pytest.approx(score, abs=1e-4)


def test_a_penalty_of_length_ends_no_search_before_a_better_text() -> None:
    table = Table(1, 3)
    sure = np.log([1 - 2e-9, 1e-9, 1e-9])
    table.scores = lambda text: sure if len(text) > 2 else np.log([0.2, 0.75, 0.05])  # type: ignore[method-assign]
    (text,) = run(1, 3, 40, table=table, num_beams=2, early_stopping="never", length_penalty=-1.0)
    # "" has log 0.2 times its length 3, which is below log 0.75 times 4, though not below log 0.75 times 43.
    assert text.ids == [1] and text.score == pytest.approx(math.log(0.75) * 4, abs=1e-5)
    assert table.calls == 2


def test_a_worked_example_of_score_and_end() -> None:
    # Word 0 is the end; after one word it is all but certain.
    table = Table(1, 3)
    sure = np.log([1 - 2e-9, 1e-9, 1e-9])
    table.scores = lambda text: sure if len(text) > 2 else np.log([0.5, 0.3, 0.2])  # type: ignore[method-assign]
    for penalty, ids, score in (
        # The prompt counts, the end does not: "" has length 3 and "1" has length 4.
        (1.0, [], math.log(0.5) / 3),
        (3.0, [1], math.log(0.3) / 4**3),
        (0.0, [], math.log(0.5)),
    ):
        (text,) = run(1, 3, 5, table=table, num_beams=2, length_penalty=penalty)
        assert text.ids == ids and text.finished and text.score == pytest.approx(score, abs=1e-6)
        table.texts = [(0,)]


def test_greedy_takes_the_likeliest_word_until_the_end() -> None:
    table = Table(6, 5)
    for row, hypothesis in enumerate(run(6, 5, 8)):
        text: tuple[int, ...] = ()
        while len(text) < 8 and END not in text:
            text = (*text, int(table.scores((row, START, *text)).argmax()))
        assert hypothesis.finished == (END in text)
        assert hypothesis.ids == [word for word in text if word != END]
        assert hypothesis.score == pytest.approx(log_probability(table, row, text) / (PROMPT + len(hypothesis.ids)))


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
    options = {"num_beams": 4, "length_penalty": 0.0, "early_stopping": "never"}
    assert [text.ids for text in run(2, 5, 50, table=sure, **options)] == [[], []]
    assert sure.calls == 1


def test_early_stopping_says_how_long_to_look_for_better_texts() -> None:
    calls, scores = {}, {}
    for early in (True, False, "never"):
        table = Table(8, 7, sharpness=1.0, end=1.0)
        found = run(8, 7, 30, table=table, num_beams=3, early_stopping=early, length_penalty=1.5)
        calls[early], scores[early] = table.calls, np.array([text.score for text in found])
    assert calls[True] < calls[False] < calls["never"] == 30
    assert (scores[True] <= scores[False]).all() and (scores[False] <= scores["never"]).all()
    assert scores[True].sum() < scores[False].sum() < scores["never"].sum()


@pytest.mark.parametrize("beams", [1, 3])
def test_repetition_penalty_makes_words_that_are_there_less_likely(beams: int) -> None:
    pytest.importorskip("transformers")

    def repeated(penalty: float) -> int:
        options = {"num_beams": beams, "min_length": 10, "repetition_penalty": penalty}
        found = run(8, 12, 11, table=Table(8, 12, sharpness=1.0), **options)
        return sum(len(text.ids) - len(set(text.ids)) for text in found)

    assert repeated(50.0) < repeated(1.0) < repeated(0.05)
    # Worked: of [2.0, 1.9, -3] the first word is taken, then halved, then the second one is.
    table = Table(1, 3)
    table.scores = lambda text: np.array([-3.0, 2.0, 1.9])  # type: ignore[method-assign]
    assert run(1, 3, 2, table=table, repetition_penalty=2.0)[0].ids == [1, 2]


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
        ({"repetition_penalty": 0.0}, r"gen_param\.repetition_penalty: must be positive"),
        ({"early_stopping": "always"}, r"gen_param\.early_stopping: must be true, false or never, not always"),
        ({"num_return_sequences": 2}, r"gen_param\.num_return_sequences: not supported\. Keys are num_beams, "),
        ({"bad_words_ids": [[3]]}, r"gen_param\.bad_words_ids: not supported"),
        ({"num_beam_groups": 2}, r"gen_param\.num_beam_groups: not supported"),
        ({"max_length": 20}, r"gen_param\.max_length: not supported: set model\.max_decode_length"),
    ],
)
def test_wrong_keys_and_values_are_named(section: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_decoding_options(section)


def test_options_of_a_config_and_none() -> None:
    assert read_decoding_options(None) == DecodingOptions()
    assert read_decoding_options({"num_beams": 5, "length_penalty": 2}).length_penalty == 2.0
    assert read_decoding_options({"early_stopping": "never"}).early_stopping == "never"
    assert not DecodingOptions.refused.keys() & {field.name for field in dataclasses.fields(DecodingOptions)}
