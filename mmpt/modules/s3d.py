"""S3D-G: separable 3-D convolutions with feature gating, over one second of video.

Legend of shapes: batch, channels, frames, height, width.

References:
    Xie et al., "Rethinking Spatiotemporal Feature Learning" (ECCV 2018): the network.
    Miech et al., "End-to-End Learning of Visual Representations from Uncurated Instructional
    Videos" (CVPR 2020): the weights ``s3d_howto100m.pth``, whose state-dict layout this is.
"""

import os
import zlib
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmpt.utils.errors import CheckpointError, nearest
from mmpt.utils.files import resolve_path
from mmpt.utils.weight_files import load_state_dict_file

__all__ = ["BLOCKS", "S3D", "Convolution", "Gating", "check_video", "load_s3d", "random_s3d"]

FEATURES = 1024
#: in, b0, (1a, 1b), (2a, 2b), 3b: the widths of each inception block's four branches
BLOCKS: dict[str, tuple[int, ...]] = {
    "mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}
_WORDS, _WORD_WIDTH, _TEXT_HIDDEN = 66250, 300, 2048


class Convolution(nn.Module):
    """Convolution without bias, batch norm, ReLU; a separable one is spatial, then temporal."""

    def __init__(
        self, channels: int, width: int, kernel: tuple[int, int, int], padding: tuple[int, int, int] = (0, 0, 0)
    ) -> None:
        super().__init__()
        self.separable = kernel == (3, 3, 3)
        if self.separable:
            self.conv1 = nn.Conv3d(channels, width, (1, 3, 3), padding=(0, 1, 1), bias=False)
            self.conv2 = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0), bias=False)
            self.bn2 = nn.BatchNorm3d(width)
        else:
            self.conv1 = nn.Conv3d(channels, width, kernel, padding=padding, bias=False)
        self.bn1 = nn.BatchNorm3d(width)

    def forward(self, video: Tensor) -> Tensor:
        """Convolve, normalise and rectify, spatially and then, if separable, in time."""
        video = F.relu(self.bn1(self.conv1(video)))
        return F.relu(self.bn2(self.conv2(video))) if self.separable else video


class Gating(nn.Module):
    """Scale each channel by a sigmoid of a linear map of all channels' means (Xie et al., section 4.4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, video: Tensor) -> Tensor:
        """Scale every channel by its gate, (batch, channels, frames, height, width) in and out."""
        weights = torch.sigmoid(self.fc(video.mean((2, 3, 4))))
        return weights[:, :, None, None, None] * video


class _Inception(nn.Module):
    """Four branches over the same input, each gated, concatenated along the channels."""

    def __init__(self, widths: tuple[int, ...], gating: bool) -> None:
        super().__init__()
        channels, b0, b1_a, b1_b, b2_a, b2_b, b3_b = widths
        self.conv_b0 = Convolution(channels, b0, (1, 1, 1))
        self.conv_b1_a = Convolution(channels, b1_a, (1, 1, 1))
        self.conv_b1_b = Convolution(b1_a, b1_b, (3, 3, 3))
        self.conv_b2_a = Convolution(channels, b2_a, (1, 1, 1))
        self.conv_b2_b = Convolution(b2_a, b2_b, (3, 3, 3))
        self.conv_b3_b = Convolution(channels, b3_b, (1, 1, 1))
        self.gating_b0 = Gating(b0) if gating else nn.Identity()
        self.gating_b1 = Gating(b1_b) if gating else nn.Identity()
        self.gating_b2 = Gating(b2_b) if gating else nn.Identity()
        self.gating_b3 = Gating(b3_b) if gating else nn.Identity()

    def forward(self, video: Tensor) -> Tensor:
        """Return the gated, concatenated branches: (batch, channels, frames, height, width)."""
        return torch.cat(
            [
                self.gating_b0(self.conv_b0(video)),
                self.gating_b1(self.conv_b1_b(self.conv_b1_a(video))),
                self.gating_b2(self.conv_b2_b(self.conv_b2_a(video))),
                self.gating_b3(self.conv_b3_b(_max_pool(video, (3, 3, 3), (1, 1, 1)))),
            ],
            dim=1,
        )


class _TextModule(nn.Module):
    """Bag of words: a hidden layer per word, the maximum over words, a linear map.

    Not used for video features. It is here because its parameters are part of the published file.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.word_embd = nn.Embedding(_WORDS, _WORD_WIDTH)
        self.fc1 = nn.Linear(_WORD_WIDTH, _TEXT_HIDDEN)
        self.fc2 = nn.Linear(_TEXT_HIDDEN, num_classes)

    def forward(self, word_ids: Tensor) -> Tensor:
        """Map word ids (batch, words) int64 to (batch, num_classes)."""
        return self.fc2(F.relu(self.fc1(self.word_embd(word_ids))).amax(1))


class S3D(nn.Module):
    """S3D-G with a space-to-depth stem.

    Args:
        num_classes: width of ``video_embedding``.
        gating: whether feature gating is used; without it the state dict has no ``gating`` keys.
        space_to_depth: fold 2 x 2 x 2 neighbourhoods into channels first; a plain 3 x 7 x 7
            stride-2 stem otherwise.
    """

    def __init__(self, num_classes: int = 512, gating: bool = True, space_to_depth: bool = True) -> None:
        super().__init__()
        self.space_to_depth = space_to_depth
        if space_to_depth:
            self.conv1 = Convolution(24, 64, (2, 4, 4), padding=(1, 2, 2))
        else:
            self.conv1 = Convolution(3, 64, (3, 7, 7), padding=(1, 3, 3))
            self.conv1.conv1.stride = (2, 2, 2)
        self.conv_2b = Convolution(64, 64, (1, 1, 1))
        self.conv_2c = Convolution(64, 192, (3, 3, 3))
        self.gating: nn.Module = Gating(192) if gating else nn.Identity()
        for name, widths in BLOCKS.items():
            self.add_module(name, _Inception(widths, gating))
        self.fc = nn.Linear(FEATURES, num_classes)
        self.text_module = _TextModule(num_classes)

    def forward(self, video: Tensor) -> dict[str, Tensor]:
        """Embed clips.

        Args:
            video: (batch, 3, frames, height, width) float RGB **in [0, 1]**; frames, height and
                width are even (one second at 30 frames/s, 224 x 224, for the published weights).

        Returns:
            ``video_embedding`` (batch, num_classes) and ``mixed_5c`` (batch, 1024), the mean of
            the last feature map.

        Raises:
            ValueError: if the shape does not fit or an integer tensor is given.
        """
        features = self.feature_map(video).mean((2, 3, 4))
        return {"video_embedding": self.fc(features), "mixed_5c": features}

    def feature_map(self, video: Tensor) -> Tensor:
        """Return the last feature map, (batch, 1024, frames / 8, height / 32, width / 32), rounded up."""
        check_video(video)
        if self.space_to_depth:
            # an even kernel with padding gives one output too many on each axis
            video = self.conv1(_space_to_depth(video))[:, :, 1:, 1:, 1:]
        else:
            video = self.conv1(video)
        video = _max_pool(video, (1, 3, 3), (1, 2, 2))
        video = self.gating(self.conv_2c(self.conv_2b(video)))
        video = _max_pool(video, (1, 3, 3), (1, 2, 2))
        for name in BLOCKS:
            if name == "mixed_4b":
                video = _max_pool(video, (3, 3, 3), (2, 2, 2))
            elif name == "mixed_5b":
                video = _max_pool(video, (2, 2, 2), (2, 2, 2))
            video = getattr(self, name)(video)
        return video


def check_video(video: Tensor) -> None:
    """Raise ValueError unless a tensor can be given to S3D: (batch, 3, frames, height, width), float, of even sizes."""
    if video.ndim != 5 or video.shape[1] != 3 or any(size % 2 for size in video.shape[2:]):
        raise ValueError(f"S3D takes (batch, 3, frames, height, width) of even sizes, not {tuple(video.shape)}")
    if not video.is_floating_point():
        raise ValueError(f"S3D takes float frames in [0, 1], not {video.dtype}; divide uint8 frames by 255")


def load_s3d(path: str | os.PathLike[str]) -> S3D:
    """Build S3D in eval mode from a local weights file (the published ``s3d_howto100m.pth``).

    Half-precision weights become float32. Nothing in the file is executed.

    Raises:
        CheckpointError: if the file is missing or unreadable, or its keys or shapes differ; names them.
    """
    state = _read_state(path)
    model = _fresh(_classes(state))
    _check_state(path, state, model.state_dict())
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def random_s3d(seed: int, num_classes: int = 512) -> S3D:
    """Build S3D in eval mode with weights that depend on ``seed`` alone; global generators stay as they are."""
    model = _fresh(num_classes)
    for key, value in model.state_dict().items():  # shares memory with the model
        if key.endswith(("running_mean", "bias", "num_batches_tracked")):
            value.zero_()
        elif key.endswith("running_var") or value.ndim == 1:
            value.fill_(1.0)
        else:  # He initialisation keeps the scale of activations through the depth
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{key}".encode()))
            value.normal_(0.0, (2.0 / value[0].numel()) ** 0.5, generator=generator)
    return model.eval().requires_grad_(False)


def _fresh(num_classes: int) -> S3D:
    with torch.random.fork_rng(devices=[]):  # default initialisation draws from the global generator
        return S3D(num_classes=num_classes)


def _read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    if not resolve_path(path).is_file():
        raise CheckpointError(
            f"{path}: no such file. S3D needs a local copy of s3d_howto100m.pth (see scripts/video_feature_extractor)"
        )
    return load_state_dict_file(path)


def _classes(state: Mapping[str, Tensor]) -> int:
    bias = state.get("fc.bias")
    return len(bias) if bias is not None and bias.ndim == 1 else 512


def _check_state(path: str | os.PathLike[str], state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:5])}{' ...' if len(keys) > 5 else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    if problems:
        hint = nearest(unexpected[0], expected) if unexpected else ""
        raise CheckpointError(f"{path}: not the weights of S3D; keys {'; '.join(problems)}.{hint}")


def _max_pool(video: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Max-pool with TensorFlow's SAME padding as published: zeros, the odd one at the end, and ceil mode."""
    padding = []
    for size, step in zip(reversed(kernel), reversed(stride), strict=True):
        total = max(size - step, 0)
        padding += [total // 2, total - total // 2]
    return F.max_pool3d(F.pad(video, padding), kernel, stride, ceil_mode=True)


def _space_to_depth(video: Tensor) -> Tensor:
    """Fold 2 x 2 x 2 neighbourhoods: (batch, C, T, H, W) -> (batch, 8 C, T / 2, H / 2, W / 2)."""
    batch, channels, frames, height, width = video.shape
    video = video.view(batch, channels, frames // 2, 2, height // 2, 2, width // 2, 2)
    video = video.permute(0, 3, 5, 7, 1, 2, 4, 6)
    return video.reshape(batch, 8 * channels, frames // 2, height // 2, width // 2)
