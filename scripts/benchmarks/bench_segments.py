"""Measure the way of segments, from videos with sound to tensors, against a plain way of doing the same.

    python scripts/benchmarks/bench_segments.py
    python scripts/benchmarks/bench_segments.py --length 300 --json segments.json

Makes its own short videos with sound. Everything runs in one process with one thread and is measured in seconds of its
processor. The reference transforms each frame of sound by itself (and, in a second row, all of a segment at once in
numpy, as librosa does), opens the video again for each frame and each piece of sound, as a script around ffmpeg does,
and reads segments from a folder of loose files. It is an error if the two ways disagree in a stored byte or a tensor.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from mmpt.store.audio import SAMPLE_RATE, decode_audio
from mmpt.store.black_bars import trim_black_bars
from mmpt.store.decode import Picture, decoded_frames
from mmpt.store.images import decode_image, encode_jpeg
from mmpt.store.segment_extraction import KINDS, SegmentExtractionOptions, extract_segments
from mmpt.store.segment_making import fitted
from mmpt.store.segment_store import SegmentStore, StoredSegments, open_segments
from mmpt.store.spectrogram import INFERENCE_STARTS, log_mel, mel_blocks
from mmpt.store.video_info import open_video
from mmpt.store.video_list import VideoItem
from mmpt.utils.extras import require
from mmpt.utils.files import write_json
from mmpt.utils.subword_training import train_subwords
from scripts.benchmarks.bench_frames import rate

__all__ = ["LooseFiles", "main", "make_sound_videos", "naive_record", "plain_mel"]

FPS = 25
WINDOW, HOP, SECONDS = 1536, 588, 5
WORDS = [*("so", "today", "we", "mix", "the", "flour", "with", "two", "eggs"), *("and", "a", "little", "milk", "until")]


def make_sound_videos(folder: Path, count: int, seconds: float, width: int, height: int) -> list[VideoItem]:
    """Write videos of a moving pattern with a chirp, and a transcript of two words a second beside each."""
    av = require("av", "video")
    rng = np.random.default_rng(0)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    items = []
    for number in range(count):
        path = folder / f"v{number:02d}.mp4"
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=FPS, options={"g": "50"})
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            sound = container.add_stream("aac", rate=44100, layout="stereo")
            for k in range(round(seconds * FPS)):
                waves = 128 + 60 * np.sin((columns + 3 * k) / 9) + 60 * np.sin((rows - 2 * k) / 11)
                picture = np.repeat(waves[..., None].astype(np.uint8), 3, 2)
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            container.mux(video.encode(None))
            times = np.arange(round(seconds * 44100)) / 44100
            chirp = 0.3 * np.sin(2 * np.pi * (200 + 3 * times) * times) + 0.05 * rng.standard_normal(len(times))
            for begin in range(0, len(times), 1024):
                block = np.repeat(chirp[None, begin : begin + 1024].astype(np.float32), 2, 0)
                frame = av.AudioFrame.from_ndarray(block, "fltp", "stereo")
                frame.sample_rate, frame.pts, frame.time_base = 44100, begin, Fraction(1, 44100)
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        words = [[WORDS[k % len(WORDS)], k / 2, k / 2 + 0.4] for k in range(int(2 * seconds))]
        (folder / f"v{number:02d}.json").write_text(json.dumps(words))
        items.append(VideoItem(path.stem, str(path)))
    return items


def plain_mel(wave: np.ndarray, bank: np.ndarray, each_frame: bool) -> np.ndarray:
    """Compute a log-mel spectrogram (frames, 64) in numpy, frame by frame or all at once: the reference."""
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))).astype(np.float32)
    padded = np.pad(wave, WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    if not each_frame:
        return np.log(np.abs(np.fft.rfft(frames * hann)) ** 2 @ bank + 0.1) - np.log(0.1)
    rows = [np.log(np.abs(np.fft.rfft(frame * hann)) ** 2 @ bank + 0.1) - np.log(0.1) for frame in frames]
    return np.stack(rows)


def naive_record(path: str, windows: Sequence[tuple[float, float]]) -> tuple[list[bytes], list[np.ndarray]]:
    """Open the file for each frame and each piece of sound, and hold all pictures: the reference."""
    size, pictures, specs = KINDS["reserve"], [], []
    for start, end in windows:
        with open_video(path) as (container, stream):
            container.seek(int((start + end) / 2 * 1_000_000))
            shown = None
            for frame in decoded_frames(container, stream):
                if frame.time is not None and frame.time > (start + end) / 2 and shown is not None:
                    break
                shown = frame
            pictures.append(Picture(None)(shown))
        specs.append(log_mel(decode_audio(path, SAMPLE_RATE, start, end)).astype(np.float16))
    trimmed = trim_black_bars(np.stack(pictures))
    return [encode_jpeg(fitted(picture, size), size.quality) for picture in trimmed], specs


class LooseFiles:
    """The reference: a file for each frame, spectrogram and list of tokens, opened when it is asked for."""

    def __init__(self, folder: Path, store: SegmentStore) -> None:
        self.folder = folder
        for name in store:
            segments = store[name]
            place = folder / name
            place.mkdir(parents=True)
            for k in range(len(segments)):
                (place / f"{k}.jpg").write_bytes(segments.image(k).tobytes())
                np.save(place / f"{k}.npy", segments.spectrogram(k))
                tokens = {"tokens": segments.tokens(k).tolist(), "times": segments.token_times(k).tolist()}
                (place / f"{k}.json").write_text(json.dumps(tokens))

    def read(self, name: str, k: int) -> tuple[bytes, np.ndarray, np.ndarray, np.ndarray]:
        """Return image, spectrogram, tokens and their times of a segment."""
        place = self.folder / name
        told = json.loads((place / f"{k}.json").read_text())
        times = np.array(told["times"], np.float32).reshape(-1, 2)
        return (place / f"{k}.jpg").read_bytes(), np.load(place / f"{k}.npy"), np.array(told["tokens"], np.int32), times


def tensors(parts: tuple[Any, ...]) -> list[torch.Tensor]:
    """Return pixels, blocks of sound and tokens of a segment as a model takes them."""
    image, spec, tokens, _ = parts
    blocks = mel_blocks(spec, 1.0, INFERENCE_STARTS)
    return [torch.from_numpy(decode_image(image)), torch.from_numpy(blocks), torch.from_numpy(tokens).long()]


def stored_parts(segments: StoredSegments, k: int) -> tuple[np.ndarray, ...]:
    """Return image, spectrogram, tokens and their times of a segment of the store."""
    return segments.image(k), segments.spectrogram(k), segments.tokens(k).copy(), segments.token_times(k)


def compare_mel(seconds: float) -> dict[str, tuple[float, float]]:
    """Return mel frames/s of (reference, ours), in which ours takes 16 segments at once."""
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(WINDOW // 2 + 1, 64, 20.0, 11025.0, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    bank = bank.astype(np.float32)
    waves = np.random.default_rng(0).uniform(-0.5, 0.5, (16, SECONDS * SAMPLE_RATE)).astype(np.float32)
    frames = log_mel(waves).shape[1]
    for each_frame in (True, False):
        np.testing.assert_allclose(plain_mel(waves[0], bank, each_frame), log_mel(waves[0]), atol=1e-3)
    ours = rate(lambda _: log_mel(waves), 1, 16 * frames, seconds)
    return {
        "mel frames, each by itself": (rate(lambda i: plain_mel(waves[i], bank, True), 16, frames, seconds), ours),
        "mel frames, numpy": (rate(lambda i: plain_mel(waves[i], bank, False), 16, frames, seconds), ours),
    }


def compare_extraction(items: Sequence[VideoItem], texts: Path, tokenizer: str, out: str) -> tuple[float, float]:
    """Extract both ways; return segments per second of processor of (reference, ours)."""
    options = SegmentExtractionOptions(kind="reserve", tokenizer=tokenizer, workers=0)
    begin = time.process_time()
    extract_segments(items, texts, out, options)
    middle = time.process_time()
    store = SegmentStore(out)
    begin_naive = time.process_time()
    naive = {item.video_id: naive_record(item.path, store[item.video_id].times.tolist()) for item in items}
    end = time.process_time()
    count = int(store.lengths().sum())
    for name, (images, specs) in naive.items():
        for k, (image, spec) in enumerate(zip(images, specs, strict=True)):
            if store[name].image(k).tobytes() != image:
                raise AssertionError(f"{name}: the two ways do not store the same frame {k}")
            # behind a seek the resampler begins at another phase
            if np.abs(store[name].spectrogram(k).astype(np.float32) - spec).mean() > 0.05:
                raise AssertionError(f"{name}: the two ways do not store the same sound {k}")
    return count / (end - begin_naive), count / (middle - begin)


def compare_reading(out: str, folder: Path, seconds: float) -> dict[str, tuple[float, float]]:
    """Read both ways; return segments/s of (reference, ours)."""
    store = open_segments(out)
    loose = LooseFiles(folder, store)
    places = [(name, k) for name in store for k in range(len(store[name]))]
    for name, k in places:
        pairs = zip(tensors(loose.read(name, k)), tensors(stored_parts(store[name], k)), strict=True)
        if not all(torch.equal(a, b) for a, b in pairs):
            raise AssertionError("the two ways do not give the same tensors")

    def ours(i: int) -> tuple[np.ndarray, ...]:
        return stored_parts(store[places[i][0]], places[i][1])

    count = len(places)
    return {
        "store to bytes": (
            rate(lambda i: loose.read(*places[i]), count, 1, seconds),
            rate(ours, count, 1, seconds),
        ),
        "store to tensors": (
            rate(lambda i: tensors(loose.read(*places[i])), count, 1, seconds),
            rate(lambda i: tensors(ours(i)), count, 1, seconds),
        ),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=2, help="number of videos (2)")
    parser.add_argument("--length", type=float, default=90.0, help="seconds of each (90)")
    parser.add_argument("--width", type=int, default=640, help="pixels (640)")
    parser.add_argument("--height", type=int, default=360, help="pixels (360)")
    parser.add_argument("--seconds", type=float, default=1.0, help="least time per measurement (1)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rates = compare_mel(args.seconds)
    with tempfile.TemporaryDirectory() as place:
        folder, tokenizer, out = Path(place), f"{place}/tokenizer", f"{place}/store"
        train_subwords("reserve", [" ".join(WORDS)] * 3, 400, tokenizer)
        items = make_sound_videos(folder, args.videos, args.length, args.width, args.height)
        rates["segments, file to store"] = compare_extraction(items, folder, tokenizer, out)
        rates |= {f"segments, {name}": both for name, both in compare_reading(out, folder / "l", args.seconds).items()}
    print(f"{f'per second, {args.width} x {args.height}':<30} {'reference':>10} {'ours':>10} {'ratio':>7}")
    for name, (reference, ours) in rates.items():
        print(f"{name:<30} {reference:>10,.0f} {ours:>10,.0f} {ours / reference:>6.1f}x")
    if args.json:
        write_json(args.json, {name: list(both) for name, both in rates.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
