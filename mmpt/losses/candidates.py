"""What the rows of a batch are compared with: the rows of this worker, or those of all workers.

Every objective that takes negatives from a batch goes through here. Each worker scores its own rows with the
candidates of all (local x global scores, never global x global), and the gradient reaches the candidates on the workers
that made them. What a worker returns is its share: fairseq's reduction, the mean over the workers that count, of losses
as of gradients, gives those of one process with the whole batch. A worker whose batches have run out before the last
step of an epoch does not count.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.utils.distributed import gather_numbers, gather_rows, world

__all__ = [
    "Candidates",
    "counts_of_all",
    "cross_entropies",
    "gather_candidates",
    "single_or_double",
    "symmetric_cross_entropy",
]


class Candidates(NamedTuple):
    """``rows`` (N, ..) to compare with, of which this worker's own begin at ``first``.

    ``share`` is what a sum over this worker's own rows is multiplied by to be its share of the mean over all rows.
    """

    rows: Tensor
    first: int
    share: float


def gather_candidates(rows: Tensor, across_workers: bool, padding_step: bool | None = None) -> Candidates:
    """Return the candidates that rows (B, ..) make, of this worker or of all workers, in float32 or float64.

    For an objective with scores of its own: score the own rows with ``rows``, row ``i``'s own being ``first + i``, and
    return the sum of the losses times ``share``. Across workers all must call this equally often, with rows that
    differ in number alone; a worker may have none.

    Args:
        rows: of this worker.
        across_workers: whether those of the others are candidates too.
        padding_step: whether this worker's batch does not count. None, of objectives whose every batch has rows: the
            batches without any do not. Where a batch that counts may have none, as a silent video, this must be told.
    """
    rows = single_or_double(rows)  # before they travel: gradients are summed over workers
    if not across_workers or world()[1] == 1:
        return Candidates(rows, 0, 1 / max(len(rows), 1))
    counts_here = len(rows) > 0 if padding_step is None else not padding_step
    numbers = gather_numbers(torch.tensor([len(rows), int(counts_here)], device=rows.device)).tolist()
    counts = [count for count, _ in numbers]
    everyone, first = gather_rows(rows, counts)
    # fairseq averages over workers, whatever their numbers of rows B: a mean over the rows of each would count those of
    # a short batch for more. The weight B / (mean B) on that mean makes the average the mean over all rows.
    counting = sum(counted for _, counted in numbers)
    return Candidates(everyone, first, counting / max(sum(counts), 1))


def counts_of_all(counts: Tensor, across_workers: bool, padding_step: bool = False) -> tuple[Tensor, Tensor]:
    """Return the numbers of items of which losses are summed up, and the workers that count, to make shares of means.

    For objectives without candidates of which batches have unlike numbers of items, such as masked words: the sum over
    this worker's own items, times the second number, divided by the first, is its share of the mean over all items.

    Args:
        counts: int64 (K,), the items of this worker for K such sums.
        across_workers: whether those of the others count too; all must call this equally often.
        padding_step: whether this worker's batch does not count, nor its items.

    Returns:
        int64 (K,) and a scalar; the latter is 0 in a padding step.
    """
    mine = torch.cat([counts, torch.ones_like(counts[:1])]) * (not padding_step)
    everyone = gather_numbers(mine).sum(0) if across_workers else mine
    return everyone[:-1], everyone[-1] * (not padding_step)


def cross_entropies(
    sides: Sequence[tuple[Tensor, Tensor]],
    score: Callable[[Tensor, Tensor], Tensor],
    across_workers: bool,
    others: Sequence[Tensor | None] | None = None,
    padding_step: bool | None = None,
) -> Tensor:
    """Return for each side, queries (B, H) and keys (B, H), the mean cross entropy of finding each query's key.

    Query ``i`` belongs to key ``i``; the other keys of the side are its negatives.

    Args:
        sides: S pairs of tensors, all of one shape, such as texts with videos and videos with texts.
        score: makes scores (B, N) of queries (B, H) with keys (N, H).
        across_workers: whether the keys of all workers are the candidates; the result is then this worker's share.
        others: for each side keys (M, H) that belong to no query, negatives alone; None for none. They too are
            gathered from all workers.
        padding_step: as of :func:`gather_candidates`.

    Returns:
        (S,), float32 or float64.
    """
    all_keys: Sequence[Tensor] = [single_or_double(keys) for _, keys in sides]
    first, share = 0, 1 / max(len(all_keys[0]), 1)
    if across_workers and world()[1] > 1:
        # One gather for all sides: one round trip, and no order of backward passes for workers to differ in.
        rows, first, share = gather_candidates(torch.stack(tuple(all_keys), dim=1), across_workers, padding_step)
        all_keys = rows.unbind(1)
    losses = []
    for (queries, _), keys, more in zip(sides, all_keys, others or [None] * len(sides), strict=True):
        if more is not None:
            keys = torch.cat([keys, gather_candidates(more, across_workers).rows])
        targets = torch.arange(first, first + len(queries), device=keys.device)
        losses.append(F.cross_entropy(score(single_or_double(queries), keys), targets, reduction="sum"))
    return torch.stack(losses) * share


def symmetric_cross_entropy(
    x: Tensor,
    y: Tensor,
    scale: Tensor | float = 1.0,
    across_workers: bool = True,
    padding_step: bool = False,
    y_extra: Tensor | None = None,
) -> Tensor:
    """Return the mean of both directions of finding each row's partner, from local rows x and y, (B, H) each.

    ``1/2 [mean_i(lse_j x_i.y_j - x_i.y_i) + mean_i(lse_j y_i.x_j - x_i.y_i)]`` of rows times ``scale``, j over all
    workers: the objective of MERLOT (Zellers et al. 2021, arXiv:2106.02636) and MERLOT Reserve (2022,
    arXiv:2201.02639). ``y_extra`` (M, H) are further candidates for x, that belong to none. In a ``padding_step`` the
    rows do not count.
    """
    if padding_step:
        x, y = x[:0], y[:0]
        y_extra = None if y_extra is None else y_extra[:0]

    def score(queries: Tensor, keys: Tensor) -> Tensor:
        with torch.autocast(queries.device.type, enabled=False):
            return (queries * scale) @ keys.T

    return cross_entropies([(x, y), (y, x)], score, across_workers, [y_extra, None], padding_step).mean()


def single_or_double(values: Tensor) -> Tensor:
    """Return half-precision values as float32, others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
