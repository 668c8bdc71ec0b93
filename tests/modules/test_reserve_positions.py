"""Reserve's coordinates and what they scale: published numbers and worked examples."""

import math

import pytest
import torch

from mmpt.modules.reserve_positions import (
    audio_coordinates,
    centred,
    grid_coordinates,
    reserve_rotary,
    rotary_factors,
    span_coordinates,
)
from mmpt.utils.errors import ConfigError
from tests.models.published_reserve import reserve_golden


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(reserve_golden()[f"outputs/rot/{name}"])


def test_coordinates_are_the_published_ones() -> None:
    assert centred(7).tolist() == [-3, -2, -1, 1, 2, 3, 4]
    assert torch.equal(centred(7), golden("coords1d_center_7"))
    assert torch.equal(audio_coordinates(30)[:, 0], golden("coords1d_center_30") / 30)
    assert torch.equal(span_coordinates(15)[:, 0], golden("coords1d_nocenter_15") / 16)
    torch.testing.assert_close(grid_coordinates(4, 6), golden("coords2d_4x6"), atol=1e-6, rtol=0)


def test_queries_are_scaled_as_published() -> None:
    rotary = reserve_rotary(golden("in_coords"), 64)
    states = golden("in_qk").transpose(1, 2)
    for scaled in rotary(states, states):
        torch.testing.assert_close(scaled.transpose(1, 2), golden("applied"), atol=1e-4, rtol=0)


def test_a_pair_of_dimensions_shares_its_angle_and_is_not_mixed() -> None:
    angle = 0.3 * math.pi  # frequency 1 of the first axis
    factors = rotary_factors(torch.tensor([[0.3, 0.7]]))
    assert factors.shape == (1, 32)
    assert factors[0, :2].tolist() == pytest.approx(
        [math.sin(angle) - math.cos(angle), math.sin(angle) + math.cos(angle)]
    )
    last = 0.7 * 5 * math.pi  # the highest frequency of the last
    assert factors[0, -2:].tolist() == pytest.approx([math.sin(last) - math.cos(last), math.sin(last) + math.cos(last)])
    query = torch.randn(1, 1, 1, 48)
    turned, _ = reserve_rotary(torch.tensor([[0.3, 0.7]]), 48)(query, query)
    torch.testing.assert_close(turned[..., :32], query[..., :32] * factors)
    assert torch.equal(turned[..., 32:], query[..., 32:])


def test_half_precision_stays_what_it_is() -> None:
    query = torch.randn(2, 1, 3, 32).bfloat16()
    turned, key = reserve_rotary(span_coordinates(3), 32)(query, query)
    assert turned.dtype == key.dtype == torch.bfloat16


def test_sizes_that_do_not_go_are_refused() -> None:
    with pytest.raises(ConfigError, match="size_per_head: 16"):
        reserve_rotary(torch.zeros(2, 1), 16)
    with pytest.raises(ConfigError, match="3 coordinate axes"):
        rotary_factors(torch.zeros(2, 3))
