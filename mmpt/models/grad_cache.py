"""Large batches in the memory of small ones: parts that are encoded again in the backward pass (GradCache).

A contrastive loss needs the vectors of a whole batch, but not the activations behind them. Encoding a batch part by
part, and keeping of each part its vectors alone, gives the loss and the gradients of the whole batch at the memory of
one part and the time of one more forward pass (Gao et al. 2021, arXiv:2101.06983). Here the backward pass of a part
first encodes it again, with the random state it had, so that dropout draws the same. All of it happens within one
forward and one backward pass of the model: any optimizer, precision and wrapper of the model will do.

Who cuts the batch: MMPT's models, whose rows are padded, call :func:`mmpt.models.base.encode_by_length`, which puts
rows of similar length together and saves the padding. A model of one's own without padding calls
:func:`encode_in_parts`. Both hand their parts to :func:`recomputed`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["encode_in_parts", "recomputed"]


def recomputed(encode: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Return ``encode(*arguments)``, of which only the result is kept: the backward pass calls it again.

    At least one argument must be a tensor on the device that is computed on: torch looks there which random states to
    keep. Without gradients this is the plain call.
    """
    if not torch.is_grad_enabled():
        return encode(*arguments)
    return checkpoint(encode, *arguments, use_reentrant=False)


def encode_in_parts(encode: Callable[..., Tensor], max_rows: int | None, *inputs: Tensor) -> Tensor:
    """Return ``encode(*inputs)``, computed on at most ``max_rows`` rows at a time; see the module.

    Args:
        encode: called with equally many rows of each input; returns one row for each.
        max_rows: None, or not fewer than there are rows, is the plain call.
        inputs: tensors (B, ..).
    """
    if max_rows is None or len(inputs[0]) <= max_rows:
        return encode(*inputs)
    parts = zip(*(values.split(max_rows) for values in inputs), strict=True)
    return torch.cat([recomputed(encode, *part) for part in parts])
