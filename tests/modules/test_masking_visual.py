"""Masks of squares and positions: how much on average, where, how often, and what becomes of the pixels."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.modules.masking_visual import draw_by_score, hide_squares, mask_blocks, selection_noise

DRAWS = 3000


# The specification's averages of 20,000 draws of the published code.
@pytest.mark.parametrize(("frames", "share"), [(1, 0.082), (2, 0.079), (4, 0.152), (5, 0.184)])
def test_the_average_share_is_that_of_the_published_code(frames: int, share: float) -> None:
    rng = np.random.default_rng(frames)
    drawn = np.array([mask_blocks(rng, frames, 7, 7).mean() for _ in range(DRAWS)])
    assert abs(drawn.mean() - share) < 0.0006 + 4 * drawn.std() / np.sqrt(DRAWS)


def test_a_single_frame_has_one_rectangle_of_every_size_and_place() -> None:
    rng, seen = np.random.default_rng(0), set()
    for _ in range(DRAWS):
        mask = mask_blocks(rng, 1, 7, 7)[0]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)
        seen.add((rows[0], columns[0], len(rows), len(columns)))
    sizes = range(1, 4)
    assert seen == {
        (y, x, h, w) for h, w in itertools.product(sizes, sizes) for y in range(8 - h) for x in range(8 - w)
    }


@settings(max_examples=60, deadline=None)
@given(frames=st.integers(1, 6), rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0, 99))
def test_any_grid_has_a_mask_that_a_seed_repeats(frames: int, rows: int, columns: int, seed: int) -> None:
    mask = mask_blocks(np.random.default_rng(seed), frames, rows, columns)
    assert mask.shape == (frames, rows, columns) and mask.dtype == bool and mask.any()
    assert np.array_equal(mask, mask_blocks(np.random.default_rng(seed), frames, rows, columns))


def test_positions_are_drawn_as_by_multinomial_without_replacement() -> None:
    weights = np.array([4.0, 0.0, 1.0, 3.0, 2.0])
    draws = 40000
    noise = selection_noise(np.random.default_rng(1), draws * 5).reshape(draws, 5)
    scores = torch.tensor(weights).expand(draws, 5)
    drawn = draw_by_score(scores, torch.full((draws,), 2), torch.from_numpy(noise)).numpy()
    assert (drawn.sum(1) == 2).all()
    for one, other in itertools.combinations([0, 2, 3, 4], 2):
        total = weights.sum()
        wanted = sum(weights[a] / total * weights[b] / (total - weights[a]) for a, b in [(one, other), (other, one)])
        share = (drawn[:, one] & drawn[:, other]).mean()
        assert abs(share - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / draws), (one, other)


def test_no_more_are_drawn_than_have_a_score_and_rows_have_their_own_number() -> None:
    scores = torch.tensor([[0.0, 0.5, 0.0, 0.2], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    noise = torch.from_numpy(selection_noise(np.random.default_rng(2), 12)).view(3, 4)
    drawn = draw_by_score(scores, torch.tensor([3, 1, 2]), noise)
    assert drawn[0].tolist() == [False, True, False, True]
    assert drawn.sum(1).tolist() == [2, 1, 0]
    assert draw_by_score(scores, torch.tensor([0, 0, 0]), noise).sum() == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_hidden_square_is_black_and_nothing_else_changes(dtype: torch.dtype) -> None:
    frames = torch.randint(1, 256, (2, 2, 3, 64, 96)).to(dtype)
    squares = torch.zeros(2, 2, 2, 3, dtype=torch.bool)
    squares[1, 0, 1, 2] = True
    before, hidden = frames.clone(), hide_squares(frames, squares)
    assert torch.equal(frames, before) and hidden.dtype == dtype
    assert (hidden[1, 0, :, 32:, 64:] == 0).all()
    hidden[1, 0, :, 32:, 64:] = frames[1, 0, :, 32:, 64:]
    assert torch.equal(hidden, frames)
    with pytest.raises(ValueError, match="not 2 x 3 equal squares"):
        hide_squares(frames[..., :63, :], squares)
