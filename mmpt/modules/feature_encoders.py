"""Feature encoders: networks that turn each second of video into one vector.

All share one interface, :class:`FeatureEncoder`, so that extraction, the demo and a user's own
videos run the same code. Registry kind ``feature_encoder``: ``s3d``, ``conv3d``, ``hf``, or
``package.module:Class`` of a user's own.
"""

import contextlib
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmpt.utils.devices import pick_device
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import file_sha256, resolve_path
from mmpt.utils.registry import resolve

__all__ = [
    "FeatureEncoder",
    "S3DEncoder",
    "SmallConv3dEncoder",
    "build_encoder",
    "frames_to_video",
]


# Resizing by cubic splines overshoots [0, 1] a little; values of 0 to 255, or standardised ones, lie beyond.
_OVERSHOOT = 0.25


def frames_to_video(frames: Tensor) -> Tensor:
    """Bring seconds of frames to the layout and range that networks take.

    Args:
        frames: (seconds, frames, height, width, 3) RGB, uint8, or float in [0, 1].

    Returns:
        (seconds, 3, frames, height, width) float32 in [0, 1].

    Raises:
        DataError: if the values are of another type or far outside of that range.
    """
    video = frames.permute(0, 4, 1, 2, 3).float()
    if frames.dtype == torch.uint8:
        return video.div_(255.0)
    if not frames.is_floating_point():
        raise DataError(f"frames are {frames.dtype}: give uint8, or float in [0, 1]")
    low, high = video.aminmax() if video.numel() else (0.0, 1.0)
    if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):  # nor is NaN
        raise DataError(
            f"float frames have values from {float(low):.4g} to {float(high):.4g}, expected [0, 1]: give uint8, or "
            "divide by 255; they are not to be standardised"
        )
    return video


class FeatureEncoder(ABC):
    """One vector per second of video.

    Attributes:
        name: the registry name.
        fps: frames per second that the network takes.
        size: side of the square frames in pixels.
        resize: shorter side that a frame is scaled to before the central square is cut.
        dim: width of a feature.
        pad: how the last, partial second is filled: ``zero`` (black frames, as published for S3D)
            or ``repeat`` (the last frame).
        cpu_threads: how many CPU threads the network can use well, None for all; more than that only
            get in the way of decoding.
        device: where the network runs.
        l2_normalize: whether features have unit length.
    """

    name: str
    fps: int
    size: int
    resize: int
    dim: int
    pad: Literal["zero", "repeat"] = "zero"
    cpu_threads: int | None = None

    def __init__(self, device: str = "cpu", l2_normalize: bool = True) -> None:
        self.device = pick_device(device)
        self.l2_normalize = bool(l2_normalize)

    @property
    def frames_per_feature(self) -> int:
        """Frames that one feature is computed from: those of one second."""
        return self.fps

    @abstractmethod
    def encode(self, video: Tensor) -> Tensor:
        """Map (seconds, 3, fps, size, size) float in [0, 1] to (seconds, dim)."""

    def settings(self) -> dict[str, Any]:
        """Return what identifies this encoder beyond its name and input size."""
        return {}

    def provenance(self) -> dict[str, Any]:
        """Return what a feature depends on, to be recorded with it; equal provenance means equal features."""
        return {
            "encoder": self.name,
            **self.settings(),
            "fps": self.fps,
            "resize": self.resize,
            "size": self.size,
            "dim": self.dim,
            "pad": self.pad,
            "l2_normalize": self.l2_normalize,
        }

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Encode whole seconds.

        Args:
            frames: (seconds, fps, size, size, 3) uint8 RGB.

        Returns:
            (seconds, dim) float32.

        Raises:
            ValueError: if the shape or dtype differs.
        """
        expected = (self.fps, self.size, self.size, 3)
        if frames.dtype != np.uint8 or frames.shape[1:] != expected:
            raise ValueError(f"{self.name} takes uint8 (seconds, {expected}), not {frames.dtype} {frames.shape}")
        with torch.inference_mode(), _limited_threads(self.cpu_threads):
            features = self.encode(frames_to_video(torch.from_numpy(frames).to(self.device))).float()
            if self.l2_normalize:
                features = F.normalize(features, dim=1)
        return features.cpu().numpy()


#: What ``--dtype`` takes.
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class S3DEncoder(FeatureEncoder):
    """S3D of HowTo100M: 30 frames of 224 x 224 to 512 values, L2-normalised by default as published.

    Args:
        weights: a local ``s3d_howto100m.pth``.
        random_init: seed of random weights instead, for trying out a pipeline.
        dtype: of the convolutions, ``fp32`` or ``bf16``. bf16 is faster where processor (AMX) or GPU has units for it,
            and slower elsewhere. Features then differ by far more than rounding from those of fp32, of random weights
            by 0.5 to 22 % of their length (docs/data.md): compare on your own weights first.

    Raises:
        ConfigError: unless exactly one of weights and seed is given, or if the dtype is neither of the two.
        CheckpointError: if the file is not the weights of S3D.
    """

    name, fps, size, resize = "s3d", 30, 224, 224

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        random_init: int | None = None,
        device: str = "cpu",
        l2_normalize: bool = True,
        dtype: str = "fp32",
    ) -> None:
        from mmpt.modules.s3d import load_s3d, random_s3d
        from mmpt.modules.s3d_inference import S3DInference

        super().__init__(device, l2_normalize)
        if (weights is None) == (random_init is None):
            raise ConfigError(
                "s3d takes either --weights with a local s3d_howto100m.pth or --random-init SEED "
                "(untrained features, for trying out a pipeline)"
            )
        if dtype not in _DTYPES:
            raise ConfigError(f"s3d: --dtype {dtype!r} is not one of {', '.join(_DTYPES)}")
        if weights is not None:
            model = load_s3d(weights)
            self._settings: dict[str, Any] = {"weights_sha256": file_sha256(resolve_path(weights))}
        else:
            model = random_s3d(int(random_init or 0))
            self._settings = {"random_init": int(random_init or 0)}
        if dtype != "fp32":  # features of fp32 have said nothing so far
            self._settings["compute_dtype"] = dtype
        self.dim = model.fc.out_features
        self.model = S3DInference(model, _DTYPES[dtype]).to(self.device)

    def settings(self) -> dict[str, Any]:
        """Return the hash of the weights file or the seed, and the dtype if it is not fp32."""
        return dict(self._settings)

    def encode(self, video: Tensor) -> Tensor:
        """Return ``video_embedding``."""
        return self.model(video)["video_embedding"]


class SmallConv3dEncoder(FeatureEncoder):
    """A small seeded 3-D convolutional network: features without any download, standardised, not normalised."""

    name, cpu_threads = "conv3d", 1

    def __init__(self, dim: int = 512, random_init: int = 0, device: str = "cpu", l2_normalize: bool = False) -> None:
        from mmpt.modules.conv3d import SmallConv3d

        super().__init__(device, l2_normalize)
        if dim < 1:
            raise ConfigError(f"conv3d: --dim {dim} is not at least 1")
        self.dim, self.seed = int(dim), int(random_init)
        self.model = SmallConv3d(dim=self.dim, seed=self.seed).to(self.device).eval()
        self.fps, self.size, self.resize = SmallConv3d.fps, SmallConv3d.size, SmallConv3d.size

    def settings(self) -> dict[str, Any]:
        """Return the seed."""
        return {"random_init": self.seed}

    def encode(self, video: Tensor) -> Tensor:
        """Return the network's output."""
        return self.model(video)


def build_encoder(name: str, **options: Any) -> FeatureEncoder:
    """Build an encoder of the registry; options that are None keep the encoder's default.

    Raises:
        ConfigError: if the name is unknown or an option is not one of this encoder's; names them.
    """
    cls = resolve("feature_encoder", name)
    given = {key: value for key, value in options.items() if value is not None}
    known = inspect.signature(cls).parameters
    foreign = [key for key in given if key not in known]
    if foreign:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in foreign)
        raise ConfigError(f"feature encoder {name!r} has no option {flags}; it takes {', '.join(known)}")
    return cls(**given)


@contextlib.contextmanager
def _limited_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if threads is None or threads >= before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
