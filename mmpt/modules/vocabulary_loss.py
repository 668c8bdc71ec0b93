"""Cross entropy over a vocabulary whose scores are never kept: some rows at a time, with their gradient at once.

The scores of n masked words among V are n x V numbers, which a plain cross entropy holds three times over (the scores,
their softmax, its gradient). Here a chunk of rows is scored, reduced to its loss and multiplied back to the gradients
of states and weights before the next one: the memory is that of one chunk, the arithmetic that of the plain way.
(torch 2.13 has ``F.linear_cross_entropy``; this one serves older versions too, and counts the rows that are right,
which a training logs.)

Shapes: n rows to tell, H hidden size, V classes.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmpt.modules.masking import IGNORED

__all__ = ["CHUNK_SCORES", "VocabularyLoss", "vocabulary_cross_entropy"]

#: Scores that are held at a time: 64 MiB of float32. Each chunk reads and writes the whole gradient of the weights.
CHUNK_SCORES = 2**24


class VocabularyLoss(NamedTuple):
    """Scalars: ``total``, the sum of the cross entropies; ``right``, how many rows score their target highest."""

    total: Tensor
    right: Tensor


def vocabulary_cross_entropy(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk_scores: int = CHUNK_SCORES
) -> VocabularyLoss:
    """Return the summed cross entropy of ``states @ weight.T + bias``, equal to the plain one up to rounding.

    Autocast is off: scores reach hundreds, which half precision would round by whole units.

    Args:
        states: (n, H), of the rows to tell alone.
        weight: (V, H), with ``bias`` (V,) or None.
        targets: int64 (n,); a row of -100 does not count.
        chunk_scores: how many scores are held at a time; at least one row of them.

    Returns:
        ``total`` float32 (float64 stays), 0 with gradients of 0 where no row counts; ``right`` int64.

    Raises:
        ValueError: if there are more or fewer targets than rows.
    """
    if targets.shape != states.shape[:1] or states.dim() != 2:
        raise ValueError(f"states {tuple(states.shape)} do not fit targets {tuple(targets.shape)}")
    exact = torch.promote_types(states.dtype, torch.float32)
    rows = max(1, chunk_scores // max(len(weight), 1))
    with torch.autocast(states.device.type, enabled=False):
        exact_bias = None if bias is None else bias.to(exact)
        wanted = torch.is_grad_enabled()
        return VocabularyLoss(*_Chunked.apply(states.to(exact), weight.to(exact), exact_bias, targets, rows, wanted))


class _Chunked(torch.autograd.Function):
    """The sum, and its gradients while the scores are at hand: the outer gradient is one number to scale them by."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rows: int, wanted: bool
    ) -> tuple[Tensor, Tensor]:
        needs = [wanted and needed for needed in ctx.needs_input_grad[:3]]
        gradients = [
            torch.zeros_like(value) if needed and value is not None else None
            for value, needed in zip((states, weight, bias), needs, strict=True)
        ]
        total, right = states.new_zeros(()), targets.new_zeros(())
        counts, labels = targets != IGNORED, targets.clamp(min=0)
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            scores = F.linear(states[part], weight, bias)
            highest, guess = scores.max(1, keepdim=True)
            label, counted = labels[part, None], counts[part, None]
            target = scores.gather(1, label)
            sums = scores.sub_(highest).exp_().sum(1, keepdim=True)
            total += ((highest - target + sums.log()) * counted).sum()
            right += ((guess == label) & counted).sum()
            if any(needs):
                # softmax minus one-hot, rows that do not count being zeros
                scores.mul_(counted / sums).scatter_add_(1, label, -counted.to(scores.dtype))
                _accumulate(gradients, part, scores, states, weight)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(right)
        return total, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if value is None else value * gradient for value in ctx.saved_tensors]
        return (*scaled, None, None, None)


def _accumulate(gradients: list[Tensor | None], part: slice, outer: Tensor, states: Tensor, weight: Tensor) -> None:
    """Add what a chunk's gradient of its scores, ``outer``, makes of states, weight and bias."""
    of_states, of_weight, of_bias = gradients
    if of_states is not None:
        torch.mm(outer, weight, out=of_states[part])
    if of_weight is not None:
        of_weight.addmm_(outer.T, states[part])
    if of_bias is not None:
        of_bias += outer.sum(0)
