"""Dropout by 16 random bits a number."""

import pytest
import torch

from mmpt.modules.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_expectation_are_right_and_neighbours_independent(p: float) -> None:
    torch.manual_seed(0)
    made = Dropout(p)(torch.ones(400_001))
    assert abs((made == 0).float().mean() - p) < 0.004
    assert abs(made.mean() - 1) < 0.02 * max(1.0, p / (1 - p))
    zero = (made == 0).float() - p
    for apart in (1, 2, 4):
        assert abs((zero[:-apart] * zero[apart:]).mean()) < 0.003


def test_gradient_follows_the_same_mask_and_seeds_repeat() -> None:
    values = torch.ones(1001, requires_grad=True)
    torch.manual_seed(5)
    first = Dropout(0.3)(values)
    first.sum().backward()
    torch.testing.assert_close(values.grad, first.detach())
    torch.manual_seed(5)
    assert torch.equal(Dropout(0.3)(values), first)
    assert not torch.equal(Dropout(0.3)(values), first)


def test_nothing_is_left_out_in_evaluation_and_everything_at_one() -> None:
    values = torch.randn(9)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values
    assert not Dropout(1.0)(values).any()
    assert Dropout(0.5)(values.bfloat16()).dtype == torch.bfloat16
