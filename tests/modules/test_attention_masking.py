"""MERLOT's choice of words to mask: worked examples, shares over many draws, and what never happens."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mmpt.modules.attention_masking import (
    attention_scores,
    choose_masked,
    corrupt,
    mask_text_by_attention,
    masked_count,
    masking_noise,
    selection_weights,
)
from mmpt.modules.merlot_tokens import MASK, PADDING, START

LENGTH, COUNT, VOCABULARY = 128, 25, 5000


def noise(groups: int, seed: int = 0) -> dict[str, Tensor]:
    return masking_noise(np.random.default_rng(seed), groups, LENGTH, COUNT, 100, VOCABULARY)


def texts(groups: int, padding: int = 8) -> Tensor:
    """Groups of four chunks of 32 positions: START, words of increasing id, padding."""
    tokens = torch.arange(1000, 1000 + LENGTH).repeat(groups, 1).view(groups, 4, 32)
    tokens[:, :, 0] = START
    tokens[:, :, 32 - padding :] = PADDING
    return tokens.flatten(1)


def test_a_fifth_of_the_positions_is_masked() -> None:
    assert [masked_count(length) for length in (0, 4, 5, 16, 128, 160)] == [0, 0, 1, 3, 25, 32]


def test_attention_counts_the_valid_queries_of_all_layers_and_the_mean_of_heads() -> None:
    maps = [torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    valid = torch.tensor([[True, True, True, True, True], [True, True, True, False, False]])
    wanted = torch.zeros(2, 5)
    for row in range(2):
        for query in range(5):
            if valid[row, query]:
                wanted[row] += sum(one[row, :, query].mean(0) for one in maps)
    torch.testing.assert_close(attention_scores(maps, valid), wanted)


def test_the_positions_attended_to_most_weigh_four_times_as_much() -> None:
    scores = torch.tensor([[9.0, 1.0, 5.0, 2.0, 3.0, 0.5, 4.0, 0.1, 0.2, 0.3]])
    words = torch.ones(1, 10, dtype=torch.bool)
    words[0, 0] = False  # START is attended to most of all
    weights = selection_weights(scores, words)
    torch.testing.assert_close(weights[0], torch.tensor([1, 1, 4, 1, 1, 1, 4, 1, 1, 1]) * 0.01)
    more = selection_weights(scores, words, top_probability=0.8)[0]
    assert more[2] * 2 == pytest.approx(0.8 * float(more[2] * 2 + 0.08), rel=1e-5)


def test_a_worked_example_of_spans() -> None:
    # 10 positions, 3 to mask. Draws by strength: 6, 2, 8; reversed: 8 (span 0), 2 (span 1), 6 (span 2).
    words = torch.ones(1, 10, dtype=torch.bool)
    gumbel = torch.zeros(1, 10)
    gumbel[0, [6, 2, 8]] = torch.tensor([30.0, 20.0, 10.0])
    weights = torch.full((1, 10), 0.01)

    def chosen(left: list[int], right: list[int]) -> list[int]:
        return choose_masked(weights, words, gumbel, torch.tensor([left]), torch.tensor([right]))[0].tolist()

    # only spans 1 and 2 rank above what no span covers, of which the first position comes next
    assert chosen([0, 0, 0], [0, 0, 0]) == [0, 2, 6]
    # the strongest draw grows to both sides
    assert chosen([0, 0, 1], [0, 0, 1]) == [5, 6, 7]
    # and takes all there are; of its five positions the first three rank alike
    assert chosen([0, 0, 2], [0, 0, 2]) == [4, 5, 6]
    # what the weakest span covers counts as not covered, also for the strongest
    assert chosen([2, 0, 0], [0, 0, 0]) == [0, 1, 2]
    # a position that two spans cover ranks by the weaker: 3 and 4 by span 1
    assert chosen([0, 0, 1], [0, 2, 0]) == [2, 5, 6] and chosen([0, 0, 2], [0, 2, 0]) == [2, 5, 6]


def test_positions_that_no_span_covers_rank_by_weight() -> None:
    weights = torch.full((1, 10), 0.01)
    weights[0, 9] = 0.04
    gumbel = torch.zeros(1, 10)
    gumbel[0, [6, 2, 8]] = torch.tensor([30.0, 20.0, 10.0])
    still = torch.zeros(1, 3, dtype=torch.long)
    found = choose_masked(weights, torch.ones(1, 10, dtype=torch.bool), gumbel, still, still)
    assert found[0].tolist() == [2, 6, 9]


def test_as_many_words_are_masked_as_there_are_to_be_and_no_others() -> None:
    tokens = texts(64)
    scores = torch.rand(64, LENGTH, generator=torch.Generator().manual_seed(0))
    masked = mask_text_by_attention(tokens, scores, **noise(64))
    assert masked.positions.shape == masked.targets.shape == (64, COUNT)
    assert (masked.positions.diff(dim=1) > 0).all()
    assert torch.equal(masked.targets, tokens.gather(1, masked.positions)) and (masked.targets >= 100).all()
    changed = masked.tokens != tokens
    assert not changed.scatter(1, masked.positions, False).any()
    assert ((masked.tokens == MASK) | (masked.tokens >= 100) | (tokens < 100)).all()


def test_masked_words_are_hidden_replaced_or_kept_as_bert_does() -> None:
    tokens = texts(2000)
    scores = torch.rand(2000, LENGTH, generator=torch.Generator().manual_seed(0))
    masked = mask_text_by_attention(tokens, scores, **noise(2000))
    now = masked.tokens.gather(1, masked.positions)
    hidden, kept = (now == MASK).float().mean(), (now == masked.targets).float().mean()
    assert hidden == pytest.approx(0.8, abs=0.006) and kept == pytest.approx(0.1, abs=0.006)
    replaced = now[(now != MASK) & (now != masked.targets)]
    assert replaced.min() < 150 and replaced.max() > VOCABULARY - 50
    assert replaced.float().mean() == pytest.approx((100 + VOCABULARY) / 2, rel=0.03)


def test_half_of_the_single_draws_are_of_those_attended_to_most() -> None:
    words = torch.ones(4000, 100, dtype=torch.bool)
    scores = torch.arange(100.0).expand(4000, 100)
    drawn = masking_noise(np.random.default_rng(3), 4000, 100, 20, 100, VOCABULARY)
    keys = selection_weights(scores, words).log() + drawn["mask_gumbel"]
    assert (keys.argmax(1) >= 80).float().mean() == pytest.approx(0.5, abs=0.03)


def test_masked_words_are_attended_to_more_than_others_and_stand_together() -> None:
    tokens = texts(1000, padding=0)
    scores = torch.rand(1000, LENGTH, generator=torch.Generator().manual_seed(0))
    masked = mask_text_by_attention(tokens, scores, **noise(1000))
    chosen = torch.zeros(1000, LENGTH).scatter(1, masked.positions, 1.0)
    top = torch.zeros(1000, LENGTH).scatter(1, scores.masked_fill(tokens < 100, 0).topk(COUNT).indices, 1.0)
    share = float((chosen * top).sum() / chosen.sum())
    assert 0.3 < share < 0.5  # 0.2 by chance; draws without replacement and spans leave less than one half
    together = (chosen[:, 1:] * chosen[:, :-1]).sum() / chosen.sum()
    assert together > 1.5 * COUNT / LENGTH


def test_spans_grow_by_their_probabilities() -> None:
    drawn = noise(3000)
    for side in ("mask_left", "mask_right"):
        shares = torch.bincount(drawn[side].flatten(), minlength=3) / drawn[side].numel()
        torch.testing.assert_close(shares, torch.tensor([0.625, 0.25, 0.125]), atol=0.01, rtol=0)
    both = (drawn["mask_left"] > 0) & (drawn["mask_right"] > 0)
    assert both.float().mean() == pytest.approx(0.375**2, abs=0.01)
    assert drawn["mask_gumbel"].mean() == pytest.approx(0.5772, abs=0.02)


def test_special_ids_are_neither_masked_nor_told_where_nobody_speaks() -> None:
    tokens = torch.full((3, LENGTH), PADDING)
    tokens[:, ::32] = START
    tokens[1, 1:4] = torch.tensor([500, 501, 502])
    tokens[2, 1:25] = torch.arange(600, 624)
    masked = mask_text_by_attention(tokens, torch.rand(3, LENGTH), **noise(3))
    assert torch.equal(masked.tokens[tokens < 100], tokens[tokens < 100])
    assert [int((row > 0).sum()) for row in masked.targets] == [0, 3, 24]
    assert set(masked.targets[1].tolist()) == {0, 500, 501, 502}


def test_what_is_drawn_depends_on_the_generator_alone() -> None:
    one, same, other = noise(2, seed=4), noise(2, seed=4), noise(2, seed=5)
    assert one.keys() == {"mask_gumbel", "mask_left", "mask_right", "mask_choice", "mask_words"}
    assert all(torch.equal(one[key], same[key]) and not torch.equal(one[key], other[key]) for key in one)
    assert one["mask_gumbel"].dtype == one["mask_choice"].dtype == torch.float32
    assert one["mask_left"].dtype == one["mask_right"].dtype == one["mask_words"].dtype == torch.int64
    assert one["mask_gumbel"].shape == (2, LENGTH) and one["mask_words"].shape == (2, COUNT)


def test_texts_too_short_to_mask_anything_stay_as_they_are() -> None:
    tokens = torch.tensor([[START, 200, 201, PADDING]])
    drawn = masking_noise(np.random.default_rng(0), 1, 4, masked_count(4), 100, VOCABULARY)
    masked = mask_text_by_attention(tokens, torch.rand(1, 4), **drawn)
    assert torch.equal(masked.tokens, tokens) and masked.positions.shape == (1, 0)


def test_the_choice_decides_what_a_masked_word_becomes() -> None:
    tokens = torch.tensor([[2, 200, 201, 202, 0]])
    positions = torch.tensor([[0, 1, 2, 3]])
    choice = torch.tensor([[0.1, 0.79, 0.85, 0.95]])
    assert corrupt(tokens, positions, choice, torch.full((1, 4), 333)).tolist() == [[2, 1, 333, 202, 0]]
    assert tokens.tolist() == [[2, 200, 201, 202, 0]]


def test_noise_of_other_texts_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit texts"):
        mask_text_by_attention(texts(3), torch.rand(3, LENGTH), **noise(2))
