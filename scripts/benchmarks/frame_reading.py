"""Reading raw frames, as the store does it and as the published code does, for the benchmarks of frames."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from mmpt.processors.frame_sampling import sample_frames
from mmpt.processors.frame_transforms import FrameTransform
from mmpt.store.frame_store import open_frames
from mmpt.store.images import decode_image, encode_jpeg
from mmpt.utils.extras import require

__all__ = ["SIZE", "STORED", "TAKEN", "NaiveFrames", "StoreFrames", "naive_extraction"]

STORED, TAKEN, SIZE = 5, 4, 224
TRANSFORM = "pad_resize"


def naive_extraction(path: str, wanted: int) -> list[bytes]:
    """Decode all frames to pictures, then choose: the reference."""
    with require("av", "video").open(path) as container:
        pictures = [frame.to_image() for frame in container.decode(video=0)]
    chosen = [pictures[int(len(pictures) / (wanted + 1) * (number + 1))] for number in range(wanted)]
    return [encode_jpeg(np.asarray(picture)) for picture in chosen]


class StoreFrames(Dataset[torch.Tensor]):
    """Frames of a store as uint8 (TAKEN, 3, SIZE, SIZE)."""

    def __init__(self, folder: str) -> None:
        self.store = open_frames(folder)
        self.ids = self.store.ids
        self.transform = FrameTransform(TRANSFORM, SIZE)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> torch.Tensor:
        stored = self.store[self.ids[index]]
        images = [decode_image(stored[k]) for k in sample_frames(len(stored), TAKEN)]
        return torch.from_numpy(self.transform(images))


class NaiveFrames(Dataset[torch.Tensor]):
    """The reference: rows of a TSV that is opened for each sample, as uint8 (TAKEN, 3, SIZE, SIZE)."""

    def __init__(self, tsv: str) -> None:
        self.tsv = tsv
        self.offsets = [int(line) for line in Path(tsv).with_suffix(".lineidx").read_text().split()]

    def __len__(self) -> int:
        return len(self.offsets)

    def row(self, index: int) -> list[bytes]:
        """Return the images of a row."""
        with open(self.tsv, "rb") as file:
            file.seek(self.offsets[index])
            return [base64.b64decode(column) for column in file.readline().split(b"\t")[1:]]

    def pixels(self, index: int) -> Iterator[np.ndarray]:
        """Yield the squares (SIZE, SIZE, 3) of a row."""
        from PIL import Image

        images = self.row(index)
        for k in sample_frames(len(images), TAKEN):
            image = Image.open(io.BytesIO(images[k])).convert("RGB")
            square = Image.new("RGB", (max(image.size),) * 2)
            square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
            yield np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BILINEAR))

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.stack([pixels.transpose(2, 0, 1) for pixels in self.pixels(index)]))
