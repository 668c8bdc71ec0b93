"""Raw frames, from videos to batches, against the published way of doing the same.

    python scripts/benchmarks/bench_frames.py
    python scripts/benchmarks/bench_frames.py -o width=640 -o height=360

Makes its own short videos. The reference extracts by holding every frame of a video as a picture, and reads a TSV of
base64 that is opened for each sample. Compared are stored bytes and pixels.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.store.frame_export import export_tsv
from mmpt.store.frame_extraction import FrameExtractionOptions, extract_frames
from mmpt.store.frame_store import FrameStore
from mmpt.store.images import decode_image
from scripts.benchmarks.frame_reading import SIZE, STORED, TAKEN, NaiveFrames, StoreFrames, naive_extraction
from scripts.benchmarks.run import run_module
from scripts.benchmarks.videos import listed_videos, make_videos
from scripts.benchmarks.work import Run, Work

__all__ = ["WORKS"]

FPS = 25


def _videos(folder: Path, videos: int, length: float, width: int, height: int) -> None:
    make_videos(folder, videos, length, width, height, FPS)


def _stored(folder: Path, videos: int, length: float, width: int, height: int) -> None:
    items = make_videos(folder, videos, length, width, height, FPS)
    extract_frames(items, str(folder / "store"), FrameExtractionOptions(frames=STORED, workers=0))
    export_tsv(FrameStore(str(folder / "store")), str(folder / "img.tsv"))


def _one_pass(folder: Path, videos: int, length: float, width: int, height: int) -> Run:
    items = listed_videos(folder)

    def call() -> dict[str, list[bytes]]:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            extract_frames(items, place, FrameExtractionOptions(frames=STORED, workers=0))
            store = FrameStore(place)
            return {name: [frame.tobytes() for frame in store[name]] for name in store.ids}

    return Run(call, videos * round(length * FPS))


def _all_held(folder: Path, videos: int, length: float, width: int, height: int) -> Run:
    items = listed_videos(folder)
    return Run(
        lambda: {item.video_id: naive_extraction(item.path, STORED) for item in items}, videos * round(length * FPS)
    )


def _reading(folder: Path, **_: Any) -> Run:
    store = StoreFrames(str(folder / "store")).store

    def call() -> list[list[bytes]]:
        return [[frame.tobytes() for frame in store[name]] for name in store.ids]

    moved = sum(len(frame) for row in call() for frame in row) / (len(store.ids) * STORED)
    return Run(call, len(store.ids) * STORED, bytes=moved)


def _reading_tsv(folder: Path, **_: Any) -> Run:
    naive = NaiveFrames(str(folder / "img.tsv"))
    return Run(lambda: [naive.row(index) for index in range(len(naive))], len(naive) * STORED)


def _sampling(opened: Callable[[Path], Any]) -> Callable[..., Run]:
    def make(folder: Path, **_: Any) -> Run:
        data = opened(folder)

        def call() -> Any:
            for index in range(len(data)):
                sample = data[index]
            return sample.numpy()

        return Run(call, len(data) * TAKEN, bytes=3 * SIZE * SIZE)

    return make


def _decoding(folder: Path, **_: Any) -> Run:
    store = StoreFrames(str(folder / "store")).store

    def call() -> None:
        for name in store.ids:
            stored = store[name]
            for k in range(TAKEN):
                decode_image(stored[k])

    return Run(call, len(store.ids) * TAKEN)


_SIZES: dict[str, Any] = {"videos": 16, "length": 10.0, "width": 320, "height": 240}
_QUICK = {"videos": 4, "length": 4.0}
_TINY = {"videos": 1, "length": 1.0, "width": 64, "height": 48}
_SIZED: dict[str, Any] = {"sizes": _SIZES, "quick": _QUICK, "tiny": _TINY}
WORKS = (
    Work("frame-extraction", "source frames", _one_pass, _all_held, "all frames held as pictures", _videos, **_SIZED),
    Work("frame-reads", "frames", _reading, _reading_tsv, "a TSV of base64, opened per sample", _stored, **_SIZED),
    Work(
        "frame-samples",
        "frames",
        _sampling(lambda folder: StoreFrames(str(folder / "store"))),
        _sampling(lambda folder: NaiveFrames(str(folder / "img.tsv"))),
        "a TSV of base64, opened per sample, PIL",
        _stored,
        **_SIZED,
    ),
    Work("frame-jpegs", "frames", _decoding, prepare=_stored, **_SIZED, group="more"),
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
