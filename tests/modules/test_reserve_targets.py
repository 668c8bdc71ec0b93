"""Which states tell what: worked examples, and distributions."""

import math

import torch

from mmpt.modules.reserve_targets import choose_sounds, choose_spans, pool_by_pointer, unit_rows


def test_states_that_point_to_one_slot_are_summed() -> None:
    chosen = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)  # two sequences each of two
    pointers = torch.tensor([[1, 0, 0], [0, 1, -1], [2, 9, 0], [0, 0, 2]])
    states = torch.arange(1.0, 8.0)[:, None]
    pooled = pool_by_pointer(states, chosen, pointers, 3, 2)
    assert pooled.states[..., 0].tolist() == [[2, 1 + 3, 0], [0, 0, 5 + 7]]
    assert pooled.hits.tolist() == [[1, 2, 0], [0, 0, 2]]
    nothing = pool_by_pointer(states[:0], torch.zeros(2, 3, dtype=torch.bool), pointers[:2], 3, 2)
    assert not nothing.states.any() and nothing.states.shape == (2, 3, 1)


def test_sounds_that_are_pointed_to_come_first_in_their_order() -> None:
    told, others = choose_sounds(torch.tensor([[0, 1, 0, 2, 1], [0, 0, 0, 0, 1]]), 2)
    assert told.tolist() == [[3, 1], [4, 0]]
    assert others.tolist() == [[4, 0, 2], [1, 2, 3]]


def test_spans_are_chosen_over_the_whole_batch_and_never_an_empty_one() -> None:
    valid = torch.tensor([[True, False, True], [True, True, False]])
    hits = torch.tensor([[0, 1, 1], [0, 0, 1]])
    noise = torch.tensor([[0.5, 9.0, 0.0], [2.0, 0.5, 9.0]])
    assert choose_spans(valid, hits, noise, 3).tolist() == [3, 2, 0]
    assert choose_spans(valid, hits, noise, 9).tolist() == [3, 2, 0, 4]


def test_float32_rounds_the_noise_and_ties_go_to_the_earlier() -> None:
    valid = torch.ones(1, 3, dtype=torch.bool)
    noise = torch.tensor([[0.10, 0.12, 0.40]])  # at a million, float32 knows sixteenths
    assert choose_spans(valid, torch.zeros(1, 3), noise, 3).tolist() == [2, 0, 1]


def test_a_span_beside_images_is_four_times_as_likely() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = 4000
    uniform = torch.rand(draws, 2, generator=generator)
    noise = -(-uniform.log()).log()
    hits = torch.tensor([[1, 0]]).expand(draws, 2)
    valid = torch.ones(1, 2, dtype=torch.bool)
    first = sum(int(choose_spans(valid, hits[:1], noise[k : k + 1], 1)) == 0 for k in range(draws))
    assert math.isclose(first / draws, 0.8, abs_tol=0.02)


def test_rows_have_length_one() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(unit_rows(rows), torch.tensor([[0.6, 0.8], [0.0, 0.0]]), atol=1e-6, rtol=0)
    assert unit_rows(rows.bfloat16()).dtype == torch.bfloat16
    assert unit_rows(rows.double()).dtype == torch.float64
