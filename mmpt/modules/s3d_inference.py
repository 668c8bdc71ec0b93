"""S3D for inference: the same function as :class:`mmpt.modules.s3d.S3D`, in fewer and faster passes over memory.

* Each batch norm is folded into the convolution before it.
* All layers see frames with the channels last in memory, (seconds x frames, channels, height, width): a spatial
  convolution is one over pictures, a temporal one sees the same memory as pictures of frames x pixels. Nothing is
  ever copied into another layout.
* Maxima over 3 x 3 x 3 are taken along one axis after the other, by comparing shifted copies. The 3-d pooling of CPUs,
  which also writes the index of each maximum, took as long as all convolutions together.
* Every branch of an inception block is scaled by its gates as it is written to its place among the others.

Outputs differ from those of S3D by rounding alone. Legend of shapes: batch, channels, frames, height, width.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmpt.modules.s3d import BLOCKS, S3D, Convolution, Gating, check_video

__all__ = ["S3DInference", "max_along"]


class S3DInference(nn.Module):
    """The video part of S3D with folded weights; ``model`` stays as it is.

    Args:
        model: in eval mode.
        dtype: that the convolutions compute in, ``torch.float32`` or ``torch.bfloat16``; weights and feature maps are
            kept in it, means, gates and the last layer are float32.

    Raises:
        ValueError: if the model is in training mode, whose batch norms cannot be folded.
    """

    def __init__(self, model: S3D, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if model.training:
            raise ValueError("S3D is in training mode: call eval() first, batch norms are folded by their statistics")
        self.dtype, self.space_to_depth = dtype, model.space_to_depth
        self.stem = _Stem(model.conv1, dtype) if model.space_to_depth else _PlainStem(model.conv1, dtype)
        self.conv_2b, self.conv_2c = _Layer(model.conv_2b, dtype), _Layer(model.conv_2c, dtype)
        self.gating = _gates(model.gating)
        self.blocks = nn.ModuleDict({name: _Block(getattr(model, name), dtype) for name in BLOCKS})
        self.fc = copy.deepcopy(model.fc)
        self.requires_grad_(False).eval()

    def forward(self, video: Tensor) -> dict[str, Tensor]:
        """Embed clips: arguments, result and errors as those of :meth:`mmpt.modules.s3d.S3D.forward`."""
        features = self.feature_map(video).mean((2, 3, 4), dtype=self.fc.weight.dtype)
        return {"video_embedding": self.fc(features), "mixed_5c": features}

    def feature_map(self, video: Tensor) -> Tensor:
        """Return the last feature map, as :meth:`mmpt.modules.s3d.S3D.feature_map`, channels last in memory."""
        check_video(video)
        batch = len(video)
        pictures = _pool_space(self.stem(video), 3, 2)
        pictures = self.conv_2c(self.conv_2b(pictures, batch), batch)
        pictures = _pool_space(_gated(pictures, self.gating, batch), 3, 2)
        for name, block in self.blocks.items():
            if name == "mixed_4b":
                pictures = _pool(pictures, batch, 3, 2)
            elif name == "mixed_5b":
                pictures = _pool(pictures, batch, 2, 2)
            pictures = block(pictures, batch)
        return pictures.unflatten(0, (batch, -1)).transpose(1, 2)


class _Layer(nn.Module):
    """A convolution with ReLU, over pictures (batch x frames, channels, height, width); then, if separable, in time."""

    def __init__(self, layer: Convolution, dtype: torch.dtype) -> None:
        super().__init__()
        weight, bias = _folded(layer.conv1, layer.bn1)
        self.padding = weight.shape[-1] // 2
        self.space = _parameter(weight[:, :, 0], dtype)
        self.space_bias = _parameter(bias, dtype)
        self.separable = layer.separable
        if layer.separable:
            weight, bias = _folded(layer.conv2, layer.bn2)
            self.time, self.time_bias = _parameter(weight[..., 0], dtype), _parameter(bias, dtype)

    def forward(self, pictures: Tensor, batch: int) -> Tensor:
        """Convolve and rectify."""
        pictures = F.conv2d(pictures, self.space, self.space_bias, padding=self.padding).relu_()
        if not self.separable:
            return pictures
        shape = pictures.shape[1:]
        rows = _by_batch(pictures, batch).transpose(1, 2).flatten(3)  # (batch, channels, frames, pixels)
        rows = F.conv2d(rows, self.time, self.time_bias, padding=(1, 0)).relu_()
        return rows.transpose(1, 2).reshape(-1, *shape)


class _Stem(nn.Module):
    """Neighbourhoods of 2 x 2 x 2 folded into channels, then a convolution of 2 x 4 x 4 of them, with ReLU.

    Its kernel of two frames is one of a single frame over the channels of both.
    """

    def __init__(self, layer: Convolution, dtype: torch.dtype) -> None:
        super().__init__()
        weight, bias = _folded(layer.conv1, layer.bn1)  # (64, 24, 2, 4, 4)
        self.weight = _parameter(weight.transpose(1, 2).flatten(1, 2), dtype)
        self.bias = _parameter(bias, dtype)

    def forward(self, video: Tensor) -> Tensor:
        """Map (batch, 3, frames, height, width) to (batch x frames / 2, 64, height / 2, width / 2)."""
        batch, channels, frames, height, width = video.shape
        times, rows, columns, inner = frames // 2, height // 2, width // 2, 8 * channels
        parts = video.reshape(batch, channels, times, 2, rows, 2, columns, 2).permute(0, 2, 4, 6, 3, 5, 7, 1)
        # a border of one before and two after: padding of two whose first output on each axis is not used
        padded = video.new_zeros((batch, times, rows + 3, columns + 3, 2, inner), dtype=self.weight.dtype)
        own = padded[:, :, 1:-2, 1:-2].view(batch, times, rows, columns, 2, 2, 2, 2, channels)
        own[..., 0, :, :, :, :] = parts
        own[:, :-1, ..., 1, :, :, :, :] = own[:, 1:, ..., 0, :, :, :, :]
        pictures = padded.flatten(4).flatten(0, 1).permute(0, 3, 1, 2)
        return F.conv2d(pictures, self.weight, self.bias).relu_()


class _PlainStem(nn.Module):
    """The stem of 3 x 7 x 7 with stride 2, for networks without space-to-depth."""

    def __init__(self, layer: Convolution, dtype: torch.dtype) -> None:
        super().__init__()
        weight, bias = _folded(layer.conv1, layer.bn1)
        self.weight, self.bias = nn.Parameter(weight.to(dtype)), _parameter(bias, dtype)

    def forward(self, video: Tensor) -> Tensor:
        """Map (batch, 3, frames, height, width) to (batch x frames / 2, 64, height / 2, width / 2)."""
        video = F.conv3d(video.to(self.weight.dtype), self.weight, self.bias, stride=2, padding=(1, 3, 3)).relu_()
        return video.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


class _Block(nn.Module):
    """An inception block."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        super().__init__()
        names = ("b0", "b1_a", "b1_b", "b2_a", "b2_b", "b3_b")
        self.layers = nn.ModuleDict({name: _Layer(getattr(block, f"conv_{name}"), dtype) for name in names})
        self.gates = nn.ModuleList([_gates(getattr(block, f"gating_b{number}")) for number in range(4)])

    def forward(self, pictures: Tensor, batch: int) -> Tensor:
        """Return the gated branches, concatenated."""
        layers = self.layers
        branches = [
            layers["b0"](pictures, batch),
            layers["b1_b"](layers["b1_a"](pictures, batch), batch),
            layers["b2_b"](layers["b2_a"](pictures, batch), batch),
            layers["b3_b"](_pool(pictures, batch, 3, 1), batch),
        ]
        count, _, height, width = pictures.shape
        out = pictures.new_empty((count, sum(branch.shape[1] for branch in branches), height, width)).to(
            memory_format=torch.channels_last
        )
        start = 0
        for branch, gates in zip(branches, self.gates, strict=True):
            place = out[:, start : start + branch.shape[1]]
            start += branch.shape[1]
            _gated(branch, gates, batch, place)
        return out


def _gated(pictures: Tensor, gates: nn.Module, batch: int, out: Tensor | None = None) -> Tensor:
    """Scale each channel of a clip by its gate, into ``out`` or in place."""
    out = pictures if out is None else out
    if not isinstance(gates, nn.Linear):
        return out if out is pictures else out.copy_(pictures)
    video = _by_batch(pictures, batch)
    weights = torch.sigmoid(gates(video.mean((1, 3, 4), dtype=gates.weight.dtype))).to(pictures.dtype)
    torch.mul(video, weights[:, None, :, None, None], out=_by_batch(out, batch))
    return out


def _pool(pictures: Tensor, batch: int, kernel: int, stride: int) -> Tensor:
    """Take maxima over cubes of side ``kernel``."""
    video = max_along(_by_batch(pictures, batch), 1, kernel, stride)
    return _pool_space(video.flatten(0, 1), kernel, stride)


def _pool_space(pictures: Tensor, kernel: int, stride: int) -> Tensor:
    """Take maxima over squares of side ``kernel``."""
    return max_along(max_along(pictures, 2, kernel, stride), 3, kernel, stride)


def max_along(values: Tensor, axis: int, kernel: int, stride: int) -> Tensor:
    """Take maxima of ``kernel`` neighbours along an axis, as S3D pads: SAME, the odd zero at the end, and ceil mode.

    Args:
        values: none negative, so that zeros around them change nothing; strides of memory are kept.
        axis: of ``values``.
        kernel: 2 or 3.
        stride: 1 or 2; the result has ``size / stride`` elements, rounded up.
    """
    size, before = values.shape[axis], max(kernel - stride, 0) // 2
    count = -(-size // stride)
    result = _every(values, axis, 0, count, stride).clone(memory_format=torch.preserve_format)
    for shift in range(-before, kernel - before):
        first = max(0, -(shift // stride)) if shift < 0 else 0  # results whose neighbour is before the start
        last = min(count, (size - 1 - shift) // stride + 1)
        if shift != 0 and first < last:
            part = result.narrow(axis, first, last - first)
            torch.maximum(part, _every(values, axis, first * stride + shift, last - first, stride), out=part)
    return result


def _every(values: Tensor, axis: int, start: int, count: int, stride: int) -> Tensor:
    part = values.narrow(axis, start, (count - 1) * stride + 1)
    return part[(slice(None),) * axis + (slice(None, None, stride),)]


def _by_batch(pictures: Tensor, batch: int) -> Tensor:
    return pictures.unflatten(0, (batch, -1))


def _folded(convolution: nn.Conv3d, norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None, "eval mode has been checked"
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return weight.detach(), bias.detach()


def _parameter(value: Tensor, dtype: torch.dtype) -> nn.Parameter:
    form = torch.channels_last if value.ndim == 4 else torch.contiguous_format
    return nn.Parameter(value.to(dtype).clone(memory_format=form), requires_grad=False)


def _gates(gating: nn.Module) -> nn.Module:
    return copy.deepcopy(gating.fc) if isinstance(gating, Gating) else nn.Identity()
