"""The chunked cross entropy over a vocabulary against torch's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmpt.modules.masking import IGNORED
from mmpt.modules.vocabulary_loss import vocabulary_cross_entropy


def _inputs(rows: int, bias: bool, seed: int = 0, classes: int = 11) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(rows, 5, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(classes, 5, generator=generator, dtype=torch.float64).requires_grad_()
    offset = torch.randn(classes, generator=generator, dtype=torch.float64).requires_grad_() if bias else None
    targets = torch.randint(classes, (rows,), generator=generator)
    targets[torch.rand(rows, generator=generator) < 0.2] = IGNORED
    return states, weight, offset, targets


@given(st.integers(0, 9), st.booleans(), st.integers(1, 60), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_loss_accuracy_and_gradients_equal_the_plain_ones(rows: int, bias: bool, chunk: int, seed: int) -> None:
    states, weight, offset, targets = _inputs(rows, bias, seed)
    leaves = [value for value in (states, weight, offset) if value is not None]
    scores = F.linear(states, weight, offset)
    plain = F.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="sum")
    wanted = torch.autograd.grad(3 * plain, leaves)
    total, right = vocabulary_cross_entropy(states, weight, offset, targets, chunk_scores=chunk)
    torch.testing.assert_close(total, plain)
    assert int(right) == int(((scores.argmax(1) == targets) & (targets != IGNORED)).sum())
    for mine, theirs in zip(torch.autograd.grad(3 * total, leaves), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_scores_of_hundreds_do_not_overflow_and_half_precision_is_computed_in_float32() -> None:
    states, weight, _, targets = (None if value is None else value.detach() for value in _inputs(6, False))
    states, weight = (states * 60).bfloat16(), (weight * 60).bfloat16()
    total, _ = vocabulary_cross_entropy(states, weight, None, targets)
    plain = F.cross_entropy(states.float() @ weight.float().T, targets, ignore_index=IGNORED, reduction="sum")
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, plain)


def test_no_more_scores_exist_than_one_chunk() -> None:
    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            for value in made if isinstance(made, tuple | list) else (made,):
                if isinstance(value, torch.Tensor):
                    self.numbers = max(self.numbers, value.numel())
            return made

    states, weight, _, targets = _inputs(300, False, classes=200)
    with Largest() as largest:
        vocabulary_cross_entropy(states, weight, None, targets, chunk_scores=2000).total.backward()
    assert largest.numbers == 2000  # of 60,000 scores


def test_nothing_is_kept_without_gradients() -> None:
    states, weight, _, targets = _inputs(4, False)
    with torch.no_grad():
        assert not vocabulary_cross_entropy(states, weight, None, targets).total.requires_grad


def test_targets_must_be_as_many_as_rows() -> None:
    states, weight, _, targets = _inputs(4, False)
    with pytest.raises(ValueError, match="do not fit"):
        vocabulary_cross_entropy(states, weight, None, targets[:3])
