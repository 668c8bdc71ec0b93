"""The order of a story's images that its captions speak for (MERLOT, arXiv:2106.02636, section 4.3), without training.

MERLOT tells of each caption and image whether they belong to one moment, or the caption comes before or after. Given an
order of the images these are N x N statements, and the best order is the one whose statements are likeliest.

Shapes: B stories, N captions and images of a story.
"""

import itertools
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

__all__ = ["MOST_IMAGES", "best_order", "order_probabilities", "order_scores"]

#: All orders are compared: 40 320 of so many images.
MOST_IMAGES = 8


def order_probabilities(draws: Sequence[Tensor]) -> Tensor:
    """Return how likely caption i is of the same moment as image j, earlier, or later: (B, N, N, 3), float32 or 64.

    The mean over draws of the random image indices of one story; a class for pairs of different videos counts in the
    softmax, and is left out then (published: the three are not normalised again).

    Args:
        draws: logits (B, N, N, 4) of each draw; class 0 is "different videos".
    """
    logits = torch.stack(list(draws))
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)[..., 1:].mean(0)


def order_scores(probabilities: Tensor) -> Tensor:
    """Return how well it fits that image j is at time t, (B, N, N): row j, column t.

    The score of an order is a sum over captions and images of log-probabilities, of which those of image j depend on
    its own time alone: the sum of one number of each row.

    Args:
        probabilities: (B, N, N, 3), of :func:`order_probabilities`.
    """
    count = probabilities.shape[1]
    log = probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()
    caption, time = torch.arange(count)[:, None], torch.arange(count)[None]
    relation = torch.where(caption == time, 0, torch.where(caption < time, 1, 2)).to(log.device)  # (captions, times)
    # (B, captions, images, times)
    chosen = log.gather(3, relation[None, :, None].expand(len(log), count, count, count))
    return chosen.sum(1)


def best_order(probabilities: Tensor) -> Tensor:
    """Return the likeliest time of each image, int64 (B, N): a permutation, the best of all N!.

    Of orders that are equally likely, the first in lexical order.

    Args:
        probabilities: (B, N, N, 3), of :func:`order_probabilities`.

    Raises:
        ValueError: if there are more than :data:`MOST_IMAGES` images, or not as many captions.
    """
    count = probabilities.shape[1]
    if probabilities.dim() != 4 or probabilities.shape[2:] != (count, 3) or not 0 < count <= MOST_IMAGES:
        raise ValueError(
            f"probabilities {tuple(probabilities.shape)}: expected (B, N, N, 3) of N captions and images, "
            f"1 to {MOST_IMAGES}"
        )
    orders = _orders(count).to(probabilities.device)
    scores = order_scores(probabilities)
    totals = torch.stack([scores[:, image, orders[:, image]] for image in range(count)]).sum(0)
    return orders[totals.argmax(1)]


@cache
def _orders(count: int) -> Tensor:
    return torch.tensor(list(itertools.permutations(range(count))))
