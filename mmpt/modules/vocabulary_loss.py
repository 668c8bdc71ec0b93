"""Scores over a vocabulary that are put off, and their cross entropy some rows at a time, with its gradient at once.

The scores of n masked words among V are n x V numbers, which a plain cross entropy holds three times over (the scores,
their logarithmic softmax, its gradient). A model in training hands its loss :class:`VocabularyScores` in their place:
a chunk of rows is scored, reduced to its loss and turned into its gradient in place. Where one chunk holds all rows
that gradient waits for the backward pass; else each is multiplied back to the gradients of states and weights before
the next one is scored. The arithmetic is that of the plain way.
(torch 2.13 has ``F.linear_cross_entropy``; this one serves older versions too, lets other classes compete, and tells
which class scores highest, which a training logs.)

Shapes: n rows to tell, H hidden size, V words, E other classes, C = V + E.
"""

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpt.modules.linear import linear
from mmpt.modules.masking import IGNORED

__all__ = ["CHUNK_SCORES", "Scores", "VocabularyScores"]

#: Scores that are held at a time: 64 MiB of float32. Each chunk reads and writes the whole gradient of the weights.
CHUNK_SCORES = 2**24
#: Words whose gradient is added at a time.
_WORDS = 2**12


@dataclasses.dataclass(eq=False)
class VocabularyScores:
    """The scores ``states @ weight.T + bias`` of n rows, not computed yet; beside them those of other classes.

    Autocast is off where they are: scores reach hundreds, which half precision would round by whole units.
    A dataclass, as torch's DistributedDataParallel looks for what is learned in those that a model returns.

    Attributes:
        states: (n, H); without a loss also (.., H), of which the scores are (.., V).
        weight: (V, H), with ``bias`` (V,) or None.
        others: scores (n, E) of classes that compete with the words.
        others_first: whether these are the first classes, not the last ones.
    """

    states: Tensor
    weight: Tensor
    bias: Tensor | None = None
    others: Tensor | None = None
    others_first: bool = False
    _best: Tensor | None = dataclasses.field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        # DistributedDataParallel goes back from what has a history: parameters by themselves it takes for unused.
        self.weight = self.weight.view_as(self.weight)
        self.bias = None if self.bias is None else self.bias.view_as(self.bias)

    def __len__(self) -> int:
        return len(self.states)

    @property
    def device(self) -> torch.device:
        """Where they would be."""
        return self.states.device

    def scores(self) -> Tensor:
        """Compute all of them: float32 (float64 stays) (n, C)."""
        states, weight, bias, others = self._exact()
        with torch.autocast(self.device.type, enabled=False):
            words = linear(states, weight, bias)
        if others is None:
            return words
        return torch.cat([others, words] if self.others_first else [words, others], dim=1)

    def deferred(self, wanted: bool) -> "VocabularyScores | Tensor":
        """Return these, or what they compute where they are not wanted so: outside training."""
        return self if wanted else self.scores()

    def cross_entropy(self, targets: Tensor, chunk_scores: int = CHUNK_SCORES) -> Tensor:
        """Return the sum of the rows' cross entropies, equal to the plain one up to rounding.

        Args:
            targets: int64 (n,), of C classes; a row of -100 does not count.
            chunk_scores: how many scores of words are held at a time; at least one row of them.

        Returns:
            A scalar, float32 (float64 stays), 0 with gradients of 0 where no row counts. Where there are several
            chunks the gradients are computed with it, once: a second backward pass is refused then.

        Raises:
            ValueError: if a target is no class; on a GPU, where looking would make the host wait, an assertion fails.
        """
        words, classes = len(self.weight), 0 if self.others is None else self.others.shape[1]
        _check(targets, words + classes)
        if self.others_first:  # the words are the first classes below
            moved = torch.where(targets < classes, targets + words, targets - classes)
            targets = moved.where(targets != IGNORED, IGNORED)
        rows = max(1, chunk_scores // max(words, 1))
        with torch.autocast(self.device.type, enabled=False):
            total, best = _Chunked.apply(*self._exact(), targets, rows, torch.is_grad_enabled())
        self._best = torch.where(best < words, best + classes, best - words) if self.others_first else best
        return total

    def best(self) -> Tensor:
        """Return the class that scores highest in each row, int64 (n,): known once there was a cross entropy."""
        if self._best is None:
            with torch.no_grad():
                self.cross_entropy(torch.full_like(self.states[:, 0], IGNORED, dtype=torch.long))
        assert self._best is not None
        return self._best

    def _exact(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        exact = torch.promote_types(self.states.dtype, torch.float32)
        bias, others = (None if value is None else value.to(exact) for value in (self.bias, self.others))
        return self.states.to(exact), self.weight.to(exact), bias, others


def _check(targets: Tensor, classes: int) -> None:
    valid = ((targets >= 0) & (targets < classes)) | (targets == IGNORED)
    if targets.device.type == "cpu":
        if not valid.all():
            wrong = int(targets[~valid][0])
            raise ValueError(
                f"target {wrong} is none of {classes} classes: has the tokenizer more words than the model?"
            )
    else:
        torch._assert_async(valid.all(), "a target is no class: has the tokenizer more words?")


#: Scores (n, C), or what they would be.
Scores = Tensor | VocabularyScores


class _Chunked(torch.autograd.Function):
    """The sum, and the class that scores highest in each row; words come before the other classes."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        others: Tensor | None,
        targets: Tensor,
        rows: int,
        wanted: bool,
    ) -> tuple[Tensor, Tensor]:
        count = len(states)
        ctx.whole, ctx.needs = count <= rows, [wanted and needed for needed in ctx.needs_input_grad[:4]]
        others = None if others is None else others.clone()
        total, best, sums = states.new_zeros(()), torch.empty_like(targets), _Sums()
        for start in range(0, max(count, 1), rows):
            part = slice(start, start + rows)
            outer = linear(states[part], weight, bias)
            reduced = _reduce(outer, None if others is None else others[part], targets[part])
            total += reduced.loss
            best[part] = reduced.best
            if not ctx.whole and any(ctx.needs):
                sums.add(ctx.needs, outer, reduced.factor, states[part], weight)
                if others is not None:
                    others[part] *= reduced.factor
                del outer  # before the next chunk has its own
        ctx.mark_non_differentiable(best)
        if ctx.whole and any(ctx.needs):
            ctx.save_for_backward(outer, reduced.factor, states, weight, others)
        elif any(ctx.needs):
            of_states = torch.cat(sums.states) if sums.states else None
            ctx.save_for_backward(of_states, sums.weight, sums.bias, others)
        return total, best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(gradient.device.type, enabled=False):
            if ctx.whole:
                outer, factor, states, weight, others = ctx.saved_tensors
                factor, sums = factor * gradient, _Sums()
                sums.add(ctx.needs, outer, factor, states, weight)
                of_states = sums.states[0] if sums.states else None
                found = [of_states, sums.weight, sums.bias, None if others is None else others * factor]
            else:
                # In place: the weights' gradient is large, and nothing else reads it.
                found = [None if value is None else value.mul_(gradient) for value in ctx.saved_tensors]
        wanted = (value if needed else None for value, needed in zip(found, ctx.needs, strict=True))
        return (*wanted, None, None, None)


class _Reduced(NamedTuple):
    """Of a chunk: the summed ``loss``, the ``best`` class (r,), and the ``factor`` (r, 1) that its gradient lacks."""

    loss: Tensor
    best: Tensor
    factor: Tensor


def _reduce(scores: Tensor, others: Tensor | None, targets: Tensor) -> _Reduced:
    """Put the gradient of the loss, but for a factor for each row, in the place of scores (r, V) and others (r, E)."""
    words = scores.shape[1]
    counted, label = (targets != IGNORED)[:, None], targets.clamp(min=0)[:, None]
    highest, best = scores.max(1, keepdim=True)
    parts = [(scores, label < words, label.clamp(max=words - 1))]
    if others is not None and others.shape[1]:
        other_highest, other_best = others.max(1, keepdim=True)
        best = torch.where(other_highest > highest, other_best + words, best)
        highest = torch.maximum(highest, other_highest)
        parts.append((others, label >= words, (label - words).clamp(min=0)))
    sums, target = torch.zeros_like(highest), torch.zeros_like(highest)
    for values, own, column in parts:
        target += values.gather(1, column).where(own, 0)
        sums += values.sub_(highest).exp_().sum(1, keepdim=True)
    # Of softmax minus one-hot, what all of a row is divided by is left to the narrower matrices of the products.
    for values, own, column in parts:
        values.scatter_add_(1, column, -sums * own)
    loss = (highest - target + sums.log()).where(counted, 0).sum()
    return _Reduced(loss, best[:, 0], counted / sums)


class _Sums:
    """Gradients of states, chunk by chunk, and of weight and bias, each None where it is not asked for."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def add(self, needs: list[bool], outer: Tensor, factor: Tensor, states: Tensor, weight: Tensor) -> None:
        """Add what the gradient ``outer * factor`` (r, V) of a chunk's scores makes of them."""
        if needs[0]:
            self.states.append(linear(outer, weight.T).mul_(factor))
        if needs[1]:
            scaled = (states * factor).T
            if self.weight is None:
                self.weight = linear(outer.T, scaled)
            else:  # some words at a time: there is no second gradient of all weights
                for part, some in zip(self.weight.split(_WORDS), outer.split(_WORDS, dim=1), strict=True):
                    part += linear(some.T, scaled)
        if needs[2]:
            of_bias = (factor.T @ outer)[0]
            self.bias = of_bias if self.bias is None else self.bias.add_(of_bias)
