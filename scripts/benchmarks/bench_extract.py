"""Feature extraction: source frames/s from files to stored features, and where the time goes, decoding or network.

    python scripts/benchmarks/bench_extract.py

Makes its own short videos. The figures below the table are the shares of decoding and network where the two take turns.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from mmpt.modules.feature_encoders import build_encoder
from mmpt.store.extraction import ExtractionOptions, extract_features
from scripts.benchmarks.run import run_module
from scripts.benchmarks.s3d_step import naive_extraction, naive_network, our_extraction, prepare
from scripts.benchmarks.videos import listed_videos, make_videos
from scripts.benchmarks.work import Run, Work

__all__ = ["WORKS"]


def _videos(folder: Path, videos: int, length: float, width: int, height: int, fps: int) -> None:
    make_videos(folder, videos, length, width, height, fps)


def _extraction(name: str) -> Callable[..., Run]:
    def make(folder: Path, videos: int, length: float, fps: int, workers: int, **_: Any) -> Run:
        encoder, items = build_encoder(name, random_init=0, device="cpu"), listed_videos(folder)

        def extract(at_once: int) -> Any:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                return extract_features(items, encoder, place, ExtractionOptions(workers=at_once))

        def figures() -> dict[str, Any]:
            summary = extract(0)
            busy = summary.decode_seconds + summary.encode_seconds
            return {
                "decoding": f"{summary.decode_seconds / busy:.1%}",
                "network": f"{summary.encode_seconds / busy:.1%}",
                "times real time, one after the other": videos * length / summary.wall_seconds,
            }

        from scripts.benchmarks.flops import count

        second = np.zeros((1, encoder.fps, encoder.size, encoder.size, 3), np.uint8)
        return Run(
            lambda: extract(workers), videos * length * fps, flop=count(lambda: encoder(second)) / fps, figures=figures
        )

    return make


def _s3d(ours: bool) -> Callable[..., Run]:
    def make(folder: Path, videos: int, seconds: float, **_: Any) -> Run:
        from scripts.benchmarks.flops import count

        call = our_extraction(folder) if ours else naive_extraction(folder)
        network = naive_network(folder) if ours else None
        frames = np.zeros((1, 30, 224, 224, 3), np.uint8)
        return Run(call, videos * seconds, flop=count(lambda: network(frames)) if network else 0.0)

    return make


WORKS = (
    Work(
        "s3d-extraction",
        "seconds of video",
        _s3d(True),
        _s3d(False),
        "a video decoded whole, then encoded second by second",
        prepare,
        {"videos": 2, "seconds": 4.0, "width": 640, "height": 360},
        quick={"videos": 1, "seconds": 2.0},
        tiny={"videos": 1, "seconds": 1.0, "width": 64, "height": 48},
        threads=2,
        tolerance=1e-3,
        least_ratio=1.5,
    ),
    *(
        Work(
            f"extract-{name}",
            "source frames",
            _extraction(name),
            prepare=_videos,
            sizes=sizes | {"workers": 1},
            quick={"length": quick, "videos": 1},
            tiny={"videos": 1, "length": 1.0, "width": 64, "height": 48, "fps": 8, "workers": 0},
            threads=2,
            tolerance=None,
            group="alone",
        )
        for name, quick, sizes in (
            ("conv3d", 8.0, {"videos": 4, "length": 20.0, "width": 320, "height": 240, "fps": 25}),
            ("s3d", 2.0, {"videos": 2, "length": 3.0, "width": 640, "height": 360, "fps": 30}),
        )
    ),
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
