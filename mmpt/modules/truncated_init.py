"""Initial weights as in TensorFlow's BERT family: truncated normal, and by fan-in for convolutions."""

import torch
from torch import Tensor, nn

__all__ = ["initialise_truncated", "truncated_normal"]


def truncated_normal(tensor: Tensor, std: float) -> None:
    """Fill a tensor from N(0, ``std``) without what lies more than two standard deviations away, which is drawn again.

    Several times as fast as the inverse of the distribution, by which PyTorch does it.
    """
    with torch.no_grad():
        tensor.normal_(std=std)
        if tensor.is_meta:
            return
        values = tensor.view(-1)
        outside = (values.abs() > 2 * std).nonzero()[:, 0]
        while len(outside):
            drawn = torch.empty_like(outside, dtype=tensor.dtype).normal_(std=std)
            values[outside] = drawn
            outside = outside[drawn.abs() > 2 * std]


def initialise_truncated(module: nn.Module, std: float) -> None:
    """Initialise linear, embedding and bare weights from a truncated N(0, ``std``), norms with 1, biases with 0.

    Convolutions begin with variance 1 / fan-in. Draws from torch's generator, which the trainer seeds.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            truncated_normal(part.weight, std)
        elif isinstance(part, nn.Conv2d):
            truncated_normal(part.weight, part.weight[0].numel() ** -0.5)
        elif isinstance(part, nn.LayerNorm | nn.GroupNorm):
            nn.init.ones_(part.weight)
        else:
            for parameter in part.parameters(recurse=False):
                if parameter.dim() > 1:
                    truncated_normal(parameter, std)
            continue
        bias = getattr(part, "bias", None)
        if bias is not None:
            nn.init.zeros_(bias)
