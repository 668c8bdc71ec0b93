"""A small frame store, and what the tests of frame systems share."""

from pathlib import Path

import numpy as np

from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.store.images import encode_jpeg

TINY_BERT = str(Path(__file__).resolve().parents[1] / "data" / "tiny_bert")
PAD, UNK, CLS, SEP, MASK = range(5)


def word(number: int) -> int:
    """Return the id of the word ``w<number>``."""
    return number + 5


def grey(level: int, height: int = 24, width: int = 32) -> bytes:
    """Return a JPEG of one grey."""
    return encode_jpeg(np.full((height, width, 3), level, np.uint8), 95)


def write_frames(folder: Path, videos: dict[str, int], seconds: bool = True, **images: list[bytes]) -> Path:
    """Write videos of so many grey frames, frame k of level 10 * k, two seconds apart from second 1 on."""
    with FrameStoreWriter(folder) as writer:
        for name, count in videos.items():
            frames = images.get(name) or [grey(10 * k) for k in range(count)]
            writer.append(name, frames, [1 + 2.0 * k for k in range(count)] if seconds else None)
    return folder


def settings(folder: Path, split: str = "test", **more: object) -> dict[str, object]:
    """Return a ``dataset`` section on the store ``frames`` of a folder."""
    sizes = {"num_frames": 4, "image_size": 16, "max_text_len": 8}
    base = {"frame_path": str(folder / "frames"), "bert_name": TINY_BERT, "use_fast": True, "split": split}
    return {**base, **sizes, **more}
