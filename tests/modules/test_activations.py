"""Activations against torch's autograd, and the quick GELU against its formula."""

import pickle

import pytest
import torch

from mmpt.modules.activations import ACTIVATIONS, activation
from mmpt.utils.errors import ConfigError


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_backward_pass_is_that_of_autograd(name: str) -> None:
    values = torch.linspace(-6, 6, 101, dtype=torch.float64, requires_grad=True)
    given = torch.linspace(-1, 2, 101, dtype=torch.float64)
    (expected,) = torch.autograd.grad(activation(name)(values), values, given)
    torch.testing.assert_close(ACTIVATIONS[name].backward(given, values.detach()), expected)


def test_the_quick_gelu_is_its_formula() -> None:
    values = torch.linspace(-8, 8, 1001)
    expected = values.double() * torch.sigmoid(1.702 * values.double())
    torch.testing.assert_close(activation("quick_gelu")(values).double(), expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(values, torch.linspace(-8, 8, 1001))  # not changed in place


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_pickle_finds_it_again(name: str) -> None:
    assert pickle.loads(pickle.dumps(activation(name))) is ACTIVATIONS[name]


def test_the_quick_gelu_of_half_precision_does_not_overflow() -> None:
    values = torch.tensor([-50000.0, 39000.0], dtype=torch.float16)
    assert torch.equal(activation("quick_gelu")(values), torch.tensor([0.0, 39000.0], dtype=torch.float16))


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"hidden_act: unknown activation 'gelus'.*gelu"):
        activation("gelus")
