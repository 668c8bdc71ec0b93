"""A trained model on one's own videos and texts, whatever system it is of.

::

    from mmpt.api import VideoTextPipeline

    pipeline = VideoTextPipeline.from_pretrained("runs/demo")
    pipeline.similarity(["a red star falls"], ["one.mp4", "two.mp4"])     # (1, 2)
    pipeline.classify("one.mp4", ["red star", "blue circle"])
    pipeline.segment("long.mp4", ["pour water", "stir"]).spans()

Shapes: N videos, M texts, L labels, T parts of a video, H hidden.
"""

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mmpt.api.outputs import Answer, ClipVectors, Hit, Timeline, VideoClip

__all__ = ["Video", "VideoTextPipeline"]

#: A video: the path of a file, a part of one, frames (T, height, width, 3) uint8 at the rate that the call is told, or
#: features (seconds, D) float.
Video = str | os.PathLike[str] | VideoClip | np.ndarray | Tensor


class VideoTextPipeline:
    """A model, its tokenizer, and what makes its video input; all calls run in eval mode without gradients.

    Attributes:
        model: the network.
        config: the settings of the job that it is of.
        source: what it was loaded from, as the user named it.
        system: one of :data:`mmpt.api.capability.SYSTEMS`.
        calls: which of :data:`mmpt.api.capability.CALLS` it answers.
        dim: H, the width of its vectors; None where it has none.
    """

    model: nn.Module
    config: DictConfig
    source: str
    system: str
    calls: frozenset[str]
    dim: int | None

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        s3d_weights: str | os.PathLike[str] | None = None,
        overrides: Sequence[str] = (),
        revision: str | None = None,
    ) -> Self:
        """Load a model from a YAML of a job, a run folder, a folder of ``save_pretrained`` or a Hugging Face hub id."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        raise NotImplementedError

    def to(self, device: str | torch.device) -> Self:
        """Move the model to a device and return the pipeline."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Return a hash of weights and settings that vectors depend on: equal ones give comparable vectors."""
        raise NotImplementedError

    def encode_video(
        self,
        videos: Video | Sequence[Video],
        *,
        fps: float | None = None,
        batch_size: int = 8,
        progress: bool = False,
    ) -> np.ndarray:
        """Encode videos: float32 (N, H); (H,) for a single video."""
        raise NotImplementedError

    def encode_clips(
        self, video: Video, clip_seconds: float, stride_seconds: float | None = None, *, batch_size: int = 32
    ) -> ClipVectors:
        """Encode the T parts of ``clip_seconds`` of a video, decoded once; the last may be shorter."""
        raise NotImplementedError

    def encode_image(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Encode pictures (height, width, 3) uint8 as videos that stand still: float32 (N, H)."""
        raise NotImplementedError

    def encode_text(self, texts: str | Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        """Encode texts: float32 (M, H); (H,) for a single text."""
        raise NotImplementedError

    def similarity(
        self, texts: str | Sequence[str], videos: Video | Sequence[Video], *, fps: float | None = None,
        batch_size: int = 8, progress: bool = False,
    ) -> np.ndarray:  # fmt: skip
        """Score every text against every video: float32 (M, N)."""
        raise NotImplementedError

    def classify(
        self,
        videos: Video | Sequence[Video],
        labels: Sequence[str],
        *,
        templates: Sequence[str] = ("{}",),
        top: int | None = None,
        fps: float | None = None,
    ) -> Any:
        """Rank labels for each video: lists of :class:`~mmpt.api.outputs.Label`; one list for a single video."""
        raise NotImplementedError

    def retrieve(
        self, queries: str | Sequence[str], videos: Sequence[Video] | np.ndarray, *, top: int = 10
    ) -> list[list[Hit]] | list[Hit]:
        """Find the videos that fit each text best; ``videos`` may be vectors (N, H) of :meth:`encode_video`."""
        raise NotImplementedError

    def segment(
        self,
        video: Video,
        labels: Sequence[str],
        *,
        templates: Sequence[str] = ("{}",),
        window_seconds: float | None = None,
        stride_seconds: float = 1.0,
        background: float | None = None,
        fps: float | None = None,
    ) -> Timeline:
        """Score labels over a video, part by part."""
        raise NotImplementedError

    def answer(
        self,
        video: Video,
        question: str,
        options: Sequence[str] | None = None,
        *,
        answers: Sequence[str] | None = None,
        top: int = 5,
        fps: float | None = None,
    ) -> list[Answer]:
        """Answer a question, best answer first: among ``options``, or open-ended among ``answers`` or all it knows."""
        raise NotImplementedError

    def caption(self, videos: Video | Sequence[Video], *, fps: float | None = None, **decoding: Any) -> Any:
        """Write a caption: a string, or a list of them for several videos."""
        raise NotImplementedError

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, licence: str | None = None, metrics: dict[str, Any] | None = None,
        include_video_encoder: bool = False,
    ) -> None:  # fmt: skip
        """Write ``model.safetensors``, ``config.yaml``, the tokenizer's files and a model card into a folder."""
        raise NotImplementedError

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None, **saving: Any) -> str:
        """Upload what :meth:`save_pretrained` writes; return its address."""
        raise NotImplementedError
