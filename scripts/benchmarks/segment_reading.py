"""Segments of sound and frames, done plainly: the references of the benchmarks of segments."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmpt.store.audio import SAMPLE_RATE, decode_audio
from mmpt.store.black_bars import trim_black_bars
from mmpt.store.decode import Picture, decoded_frames
from mmpt.store.images import decode_image, encode_jpeg
from mmpt.store.segment_extraction import KINDS
from mmpt.store.segment_making import fitted
from mmpt.store.segment_store import SegmentStore, StoredSegments
from mmpt.store.spectrogram import INFERENCE_STARTS, log_mel, mel_blocks
from mmpt.store.video_info import open_video

__all__ = ["HOP", "WINDOW", "LooseFiles", "naive_record", "plain_mel", "stored_parts", "tensors"]

WINDOW, HOP = 1536, 588


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
