"""Vectors of videos, of their parts, of pictures and of texts, and scores by them, as the calls of a pipeline ask for.

Shapes: N videos, M texts, T parts of a video, H hidden.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmpt.api.capability import require_call
from mmpt.api.checks import as_pictures, check_count, check_texts
from mmpt.api.outputs import ClipVectors
from mmpt.api.video_input import FeatureReader, spans_of
from mmpt.api.video_sources import as_list, source_of

__all__ = ["encode_clips", "encode_images", "encode_texts", "encode_videos", "similarity"]


def encode_videos(pipeline: Any, videos: Any, fps: float | None, batch_size: int, progress: bool) -> np.ndarray:
    """Encode videos, see :meth:`~mmpt.api.VideoTextPipeline.encode_video`: float32 (N, H); (H,) for a single video."""
    require_call(pipeline, "encode_video")
    check_count(batch_size, "batch_size")
    given, single = as_list(videos)
    if not given:
        return np.zeros((0, pipeline.dim or 0), np.float32)
    vectors: np.ndarray = pipeline.comparer.video_vectors(pipeline.reader.each(given, fps, progress), batch_size)
    return vectors[0] if single else vectors


def encode_clips(
    pipeline: Any, video: Any, length: float, stride: float | None, fps: float | None, batch_size: int
) -> ClipVectors:
    """Encode the T parts of a video, of ``length`` seconds, see :meth:`~mmpt.api.VideoTextPipeline.encode_clips`."""
    require_call(pipeline, "encode_video")
    check_count(batch_size, "batch_size")
    opened, duration = pipeline.reader.opened(source_of(video, fps))
    spans = spans_of(duration, length, stride, pipeline.reader.grain)
    vectors = pipeline.comparer.video_vectors(pipeline.reader.parts(opened, spans), batch_size)
    starts, ends = (np.array(side, np.float64) for side in zip(*spans, strict=True))
    return ClipVectors(starts, ends, vectors)


def encode_images(pipeline: Any, images: Any) -> np.ndarray:
    """Encode pictures as videos that stand still: float32 (N, H); (H,) for a single one."""
    require_call(pipeline, "encode_video")
    given, single = as_pictures(images)
    reader = pipeline.reader
    wanted = reader.encoder.fps if isinstance(reader, FeatureReader) else reader.wanted.frames
    vectors: np.ndarray = pipeline.encode_video(
        [np.repeat(image[None], wanted, 0) for image in given], fps=float(wanted)
    )
    return vectors[0] if single else vectors


def encode_texts(pipeline: Any, texts: str | Sequence[str], batch_size: int) -> np.ndarray:
    """Encode texts: float32 (M, H); (H,) for a single text."""
    require_call(pipeline, "encode_text")
    check_count(batch_size, "batch_size")
    given, single = check_texts(texts)
    vectors: np.ndarray = pipeline.comparer.text_vectors(given, batch_size)
    return vectors[0] if single else vectors


def similarity(
    pipeline: Any, texts: str | Sequence[str], videos: Any, fps: float | None, batch_size: int, progress: bool
) -> np.ndarray:
    """Score every text against every video: float32 (M, N)."""
    require_call(pipeline, "similarity")
    check_count(batch_size, "batch_size")
    asked, given = check_texts(texts)[0], as_list(videos)[0]
    if not given:
        return np.zeros((len(asked), 0), np.float32)
    scores: np.ndarray = pipeline.comparer.scores(asked, pipeline.reader.each(given, fps, progress), batch_size)
    return scores
