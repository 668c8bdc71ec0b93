"""Measure feature extraction: frames per second in and out, and where the time goes, decoding or network.

    python scripts/benchmarks/bench_extract.py

Makes its own short videos. Rows with 0 workers take turns, so that their shares are those of the work
itself; rows with workers overlap the two. "source/s" counts the frames decoded from the files, "given/s" the
frames after resampling to the encoder's rate, which are scaled, cropped and given to the network.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from mmpt.modules.feature_encoders import FeatureEncoder, build_encoder
from mmpt.store.extraction import ExtractionOptions, extract_features
from mmpt.store.video_list import VideoItem
from mmpt.utils.extras import require

__all__ = ["main", "make_videos", "measure"]


def make_videos(folder: Path, count: int, seconds: float, width: int, height: int, fps: int) -> list[VideoItem]:
    """Write H.264 files of drifting noise and return them as a list of videos."""
    av = require("av", "video")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    texture = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    items = []
    for number in range(count):
        path = folder / f"bench{number}_{width}x{height}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=fps, options={"preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for index in range(round(seconds * fps)):
                picture = np.roll(texture, (index + number, 2 * index), (0, 1))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        items.append(VideoItem(path.stem, str(path)))
    return items


def measure(encoder: FeatureEncoder, items: Sequence[VideoItem], workers: int) -> dict[str, float]:
    """Extract once; return source and given frames/s, seconds of video per second, shares of decoding and network."""
    encoder(np.zeros((1, encoder.fps, encoder.size, encoder.size, 3), np.uint8))  # the first call allocates
    with tempfile.TemporaryDirectory() as folder:
        summary = extract_features(items, encoder, folder, ExtractionOptions(workers=workers))
    busy = summary.decode_seconds + summary.encode_seconds
    return {
        "source frames/s": summary.source_frames / summary.wall_seconds,
        "given frames/s": summary.frames / summary.wall_seconds,
        "x real time": summary.frames / encoder.fps / summary.wall_seconds,
        "decode share": summary.decode_seconds / busy,
        "network share": summary.encode_seconds / busy,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line per encoder and number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="length of each of the four videos for conv3d (20)")
    parser.add_argument("--s3d-seconds", type=float, default=3, help="length of each of the two videos for s3d (3)")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    print(
        f"{'encoder':8} {'source':14} {'rate given':>10} {'workers':>7} {'source/s':>9} {'given/s':>9} "
        f"{'x real time':>12} {'decode':>7} {'network':>8}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        jobs = [
            ("conv3d", make_videos(folder, 4, args.seconds, 320, 240, 25), "320x240 25/s"),
            ("s3d", make_videos(folder, 2, args.s3d_seconds, 640, 360, 30), "640x360 30/s"),
        ]
        for name, items, source in jobs:
            encoder = build_encoder(name, random_init=0, device=args.device)
            for workers in (0, 1):
                row = measure(encoder, items, workers)
                print(
                    f"{name:8} {source:14} {f'{encoder.fps}/s':>10} {workers:7} {row['source frames/s']:9.1f} "
                    f"{row['given frames/s']:9.1f} {row['x real time']:12.1f} "
                    f"{row['decode share']:7.1%} {row['network share']:8.1%}"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
