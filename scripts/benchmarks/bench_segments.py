"""Segments, from videos with sound to tensors, against a plain way of doing the same.

    python scripts/benchmarks/bench_segments.py
    python scripts/benchmarks/bench_segments.py -o length=300

Makes its own short videos with sound. The reference transforms each frame of sound by itself, opens the video again
for each frame and each piece of sound, as a script around ffmpeg does, and reads segments from a folder of loose files.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from mmpt.store.audio import SAMPLE_RATE
from mmpt.store.segment_extraction import SegmentExtractionOptions, extract_segments
from mmpt.store.segment_store import SegmentStore, open_segments
from mmpt.store.spectrogram import log_mel
from mmpt.utils.subword_training import train_subwords
from scripts.benchmarks.run import run_module
from scripts.benchmarks.segment_reading import WINDOW, LooseFiles, naive_record, plain_mel, stored_parts, tensors
from scripts.benchmarks.videos import WORDS, listed_videos, make_sound_videos
from scripts.benchmarks.work import Run, Work, WrongResult

__all__ = ["WORKS"]

SECONDS = 5


def _mel(ours: bool) -> Callable[..., Run]:
    def make(folder: Path, waves: int) -> Run:
        from transformers.audio_utils import mel_filter_bank

        bank = mel_filter_bank(WINDOW // 2 + 1, 64, 20.0, 11025.0, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
        sounds = np.random.default_rng(0).uniform(-0.5, 0.5, (waves, SECONDS * SAMPLE_RATE)).astype(np.float32)
        narrow = bank.astype(np.float32)
        frames = log_mel(sounds[:1]).shape[1]

        def call() -> np.ndarray:
            return log_mel(sounds) if ours else np.stack([plain_mel(wave, narrow, True) for wave in sounds])

        return Run(call, waves * frames, bytes=sounds.nbytes / (waves * frames))

    return make


def _videos(folder: Path, videos: int, length: float, width: int, height: int) -> None:
    train_subwords("reserve", [" ".join(WORDS)] * 3, 400, str(folder / "tokenizer"))
    _extract(folder, str(folder / "store"), made=make_sound_videos(folder, videos, length, width, height))


def _extract(folder: Path, out: str, made: Any = None) -> SegmentStore:
    options = SegmentExtractionOptions(kind="reserve", tokenizer=str(folder / "tokenizer"), workers=0)
    extract_segments(made or listed_videos(folder), folder, out, options)
    return SegmentStore(out)


def _frames_of(store: SegmentStore) -> dict[str, list[bytes]]:
    return {name: [store[name].image(k).tobytes() for k in range(len(store[name]))] for name in store}


def _one_pass(folder: Path, **_: Any) -> Run:
    def call() -> dict[str, list[bytes]]:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            return _frames_of(_extract(folder, f"{place}/store"))

    return Run(call, int(SegmentStore(str(folder / "store")).lengths().sum()))


def _opened_again(folder: Path, **_: Any) -> Run:
    store = SegmentStore(str(folder / "store"))

    def call() -> dict[str, list[bytes]]:
        images = {}
        for item in listed_videos(folder):
            stored = store[item.video_id]
            images[item.video_id], specs = naive_record(item.path, stored.times.tolist())
            for k, spec in enumerate(specs):  # behind a seek the resampler begins at another phase
                if np.abs(stored.spectrogram(k).astype(np.float32) - spec).mean() > 0.05:
                    raise WrongResult(f"{item.video_id}: the two ways do not store the same sound {k}")
        return images

    return Run(call, int(store.lengths().sum()))


def _reading(ours: bool, as_tensors: bool) -> Callable[..., Run]:
    def make(folder: Path, **_: Any) -> Run:
        store = open_segments(str(folder / "store"))
        places = [(name, k) for name in store for k in range(len(store[name]))]
        loose = folder / f"loose_{as_tensors}"
        read = (lambda name, k: stored_parts(store[name], k)) if ours else LooseFiles(loose, store).read

        def call() -> list[Any]:
            last: Any = None
            for name, k in places:
                parts = read(name, k)
                last = tensors(parts) if as_tensors else parts
            return [value.numpy() for value in last] if as_tensors else [bytes(last[0]), *last[1:]]

        parts = stored_parts(store[places[0][0]], 0)
        moved = sum(value.nbytes for value in (tensors(parts) if as_tensors else parts))
        return Run(call, len(places), bytes=moved)

    return make


_SIZES: dict[str, Any] = {"videos": 2, "length": 90.0, "width": 640, "height": 360}
_SIZED: dict[str, Any] = {
    "sizes": _SIZES,
    "quick": {"videos": 1, "length": 20.0, "width": 320, "height": 180},
    "tiny": {"videos": 1, "length": 10.0, "width": 64, "height": 48},
}
WORKS = (
    Work(
        "mel-frames",
        "frames of sound",
        _mel(True),
        _mel(False),
        "each frame of sound by itself, in numpy",
        sizes={"waves": 16},
        quick={"waves": 4},
        tiny={"waves": 1},
        tolerance=1e-3,
    ),
    Work(
        "segment-extraction",
        "segments",
        _one_pass,
        _opened_again,
        "the video opened again for each frame and sound",
        _videos,
        **_SIZED,
    ),
    *(
        Work(
            f"segment-{name}",
            "segments",
            _reading(True, name == "tensors"),
            _reading(False, name == "tensors"),
            "a folder of loose files",
            _videos,
            **_SIZED,
        )
        for name in ("reads", "tensors")
    ),
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
