"""Videos that the benchmarks make for themselves."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np

from mmpt.store.video_list import VideoItem
from mmpt.utils.extras import require

__all__ = ["WORDS", "listed_videos", "make_sound_videos", "make_videos"]

FPS = 25  # of videos with sound
WORDS = [*("so", "today", "we", "mix", "the", "flour", "with", "two", "eggs"), *("and", "a", "little", "milk", "until")]


def listed_videos(folder: Path) -> list[VideoItem]:
    """Return the videos that were made in a folder."""
    return [VideoItem(path.stem, str(path)) for path in sorted(folder.glob("*.mp4"))]


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
