"""Measure the way of raw frames, from videos to batches, against the published way of doing the same.

    python scripts/benchmarks/bench_frames.py
    python scripts/benchmarks/bench_frames.py --width 640 --height 360 --json frames.json

Makes its own short videos. Everything runs in one process and is measured in seconds of its processor, but for the
loader's single worker, whose figure is in seconds of the clock. The reference extracts by holding every frame of a
video as a picture, and reads a TSV of base64 that is opened for each sample. Both end with the same uint8 pixels; what
the published code does beside, to make normalised floats of them, where MMPT normalises on the device, has a row of its
own. It is an error if the two ways disagree in a stored byte or a pixel.
"""

import argparse
import base64
import io
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from mmpt.processors.frame_sampling import sample_frames
from mmpt.processors.frame_transforms import FrameTransform
from mmpt.store.frame_export import export_tsv
from mmpt.store.frame_extraction import FrameExtractionOptions, extract_frames
from mmpt.store.frame_store import FrameStore, open_frames
from mmpt.store.images import decode_image, encode_jpeg
from mmpt.store.video_list import VideoItem
from mmpt.utils.extras import require
from mmpt.utils.files import write_json
from scripts.benchmarks.bench_extract import make_videos

__all__ = ["NaiveFrames", "StoreFrames", "main", "naive_extraction"]

STORED, TAKEN, SIZE = 5, 4, 224
TRANSFORM = "pad_resize"
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
DEVIATION = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


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


def as_floats(frames: torch.Tensor) -> torch.Tensor:
    """Return frames (.., 3, S, S) as the published code hands them over: floats, normalised."""
    return (frames.float().div(255) - MEAN) / DEVIATION


def rate(work: Callable[[int], Any], items: int, each: int, seconds: float) -> float:
    """Return units per second of processor: goes round ``work(0)`` to ``work(items - 1)``, ``each`` units a call."""
    work(0)
    done, begin = 0, time.process_time()
    while (passed := time.process_time() - begin) < seconds:
        work(done % items)
        done += 1
    return done * each / passed


def loader_rate(dataset: Dataset[torch.Tensor], seconds: float) -> float:
    """Return the frames/s that a loader with one worker hands over, its start not counted."""
    long = ConcatDataset([dataset] * 1000)  # the beginning of an epoch is not what is measured
    batches = iter(DataLoader(long, batch_size=4, num_workers=1))
    for _ in range(3):
        next(batches)
    frames, begin = 0, time.perf_counter()
    while (passed := time.perf_counter() - begin) < seconds:
        batch = next(batches)
        frames += batch.shape[0] * batch.shape[1]
    return frames / passed


def compare_extraction(items: Sequence[VideoItem], folder: str) -> dict[str, tuple[float, float]]:
    """Extract both ways; return source frames per second of processor of (naive, one pass that keeps few)."""
    begin = time.process_time()
    naive = {item.video_id: naive_extraction(item.path, STORED) for item in items}
    middle = time.process_time()
    summary = extract_frames(items, folder, FrameExtractionOptions(frames=STORED, workers=0))
    end = time.process_time()
    store = FrameStore(folder)
    if any([frame.tobytes() for frame in store[name]] != images for name, images in naive.items()):
        raise AssertionError("the two ways do not store the same bytes")
    frames = summary.source_frames
    return {"decoded from video": (frames / (middle - begin), frames / (end - middle))}


def compare_reading(folder: str, tsv: str, seconds: float) -> dict[str, tuple[float, float]]:
    """Read both ways; return frames/s of (naive, store) by what is done."""
    ours, naive = StoreFrames(folder), NaiveFrames(tsv)
    for index in range(len(ours)):
        if not torch.equal(ours[index], naive[index]):
            raise AssertionError("the two ways do not give the same pixels")
    count = len(ours)
    images = [[ours.store[name][k] for k in range(TAKEN)] for name in ours.ids]
    pixels = [[decode_image(image) for image in group] for group in images]

    def read(index: int) -> None:
        stored = ours.store[ours.ids[index]]
        for k in range(STORED):
            stored[k].tobytes()

    return {
        "read (bytes)": (rate(naive.row, count, STORED, seconds), rate(read, count, STORED, seconds)),
        "sample": (
            rate(naive.__getitem__, count, TAKEN, seconds),
            rate(ours.__getitem__, count, TAKEN, seconds),
        ),
        "one loader worker": (loader_rate(naive, seconds), loader_rate(ours, seconds)),
        "sample, published floats": (rate(lambda i: as_floats(naive[i]), count, TAKEN, seconds), float("nan")),
        "JPEG decoding alone": (
            float("nan"),
            rate(lambda i: list(map(decode_image, images[i])), count, TAKEN, seconds),
        ),
        "transform alone": (float("nan"), rate(lambda i: ours.transform(pixels[i]), count, TAKEN, seconds)),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=16, help="number of videos (16)")
    parser.add_argument("--length", type=float, default=10.0, help="seconds of each (10)")
    parser.add_argument("--width", type=int, default=320, help="pixels (320)")
    parser.add_argument("--height", type=int, default=240, help="pixels (240)")
    parser.add_argument("--seconds", type=float, default=1.0, help="least time per measurement (1)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        items = make_videos(Path(place), args.videos, args.length, args.width, args.height, 25)
        folder, tsv = f"{place}/store", f"{place}/img.tsv"
        rates = compare_extraction(items, folder)
        export_tsv(FrameStore(folder), tsv)
        rates |= compare_reading(folder, tsv, args.seconds)
    share = 1 / rates["JPEG decoding alone"][1] * rates["sample"][1]
    print(f"{f'frames/s, {args.width} x {args.height} -> {SIZE}':<30} {'published':>10} {'store':>10} {'ratio':>7}")
    for name, (naive, ours) in rates.items():
        figures = [f"{figure:>10,.0f}" if not math.isnan(figure) else f"{'':>10}" for figure in (naive, ours)]
        ratio = f"{ours / naive:>6.1f}x" if not math.isnan(ours / naive) else ""
        print(f"{name:<30} {' '.join(figures)} {ratio}")
    print(f"JPEG decoding takes {share:.0%} of a sample of the store")
    if args.json:
        kept = {name: [None if math.isnan(figure) else figure for figure in both] for name, both in rates.items()}
        write_json(args.json, {**kept, "jpeg_share": share})
    return 0


if __name__ == "__main__":
    sys.exit(main())
