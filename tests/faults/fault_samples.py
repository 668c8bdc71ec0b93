"""Small videos and an encoder for the tests of faults; imported by child processes too."""

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FPS", "Levels", "write_video", "write_videos"]

FPS = 8


def write_video(path: Path, levels: list[int], width: int = 48, height: int = 36) -> Path:
    """Write a video of flat grey frames of these levels."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for level in levels:
            picture = np.full((height, width, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_videos(folder: Path, names: str) -> Path:
    """Write one video of two seconds per letter."""
    for number, name in enumerate(names):
        write_video(folder / f"{name}.mp4", [40 + 20 * number] * 2 * FPS)
    return folder


class Levels:
    """An encoder of ``dim`` numbers a second, all the mean grey level; ``before`` is called before each batch."""

    fps, size, resize, pad = 4, 16, 20, "zero"

    def __init__(self, dim: int = 4, before: Any = None) -> None:
        self.dim, self.before, self.calls = dim, before, 0

    def provenance(self) -> dict[str, Any]:
        return {"encoder": "levels", "dim": self.dim}

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        if self.before is not None:
            self.before(self.calls)
        self.calls += 1
        return np.repeat(frames.mean((1, 2, 3, 4), dtype=np.float32)[:, None], self.dim, 1)
