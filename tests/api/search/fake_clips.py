"""A pipeline that needs no model: the vectors of a video are said by the bytes of its file."""

import hashlib
from pathlib import Path

import numpy as np

from mmpt.api.outputs import ClipVectors
from mmpt.utils.errors import DataError

DIM = 8


def directions(name: str, count: int = 1) -> np.ndarray:
    """Random vectors that a name decides, not of unit length."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32) * 3


class FakePipeline:
    """A file ``NAME COUNT`` has COUNT clips, whose vectors are those of NAME."""

    source, system, dim, model = "fake", "VideoCLIP", DIM, None
    calls = frozenset({"index"})

    def __init__(self, name="one"):
        self.name = name
        self.encoded = []

    def fingerprint(self):
        return f"fingerprint-{self.name}"

    def encode_clips(self, path, clip_seconds, stride_seconds=None, batch_size=32):
        path = path.path  # of an IndexedVideo
        self.encoded.append(Path(path).name)
        name, _, count = Path(path).read_text().strip().partition(" ")
        if not count.isdecimal():
            raise DataError(f"{path}: no frame can be decoded")
        starts = np.arange(int(count)) * stride_seconds
        return ClipVectors(starts, starts + clip_seconds, directions(name, int(count)))

    def encode_text(self, texts, batch_size=64):
        return directions(texts)[0]

    def encode_video(self, video, **_):
        return directions(Path(video.path).read_text().split()[0])[0]

    def encode_image(self, images):
        return np.stack([directions(f"{image.mean():.0f}")[0] for image in images])


def write(folder, **videos):
    """Write videos NAME="WORD COUNT"; a double underscore is a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in videos.items():
        path = folder / (name.replace("__", "/") + ".mp4")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return folder
