"""Videos with sound for tests: a beep at the beginning of each second, a picture whose grey tells the time."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

__all__ = ["beeps", "first_beep", "write_sound_video"]

FPS = 8


def beeps(seconds: np.ndarray) -> np.ndarray:
    """A tone of 300 Hz in the first tenth of every second, from -0.3 to 0.3."""
    return 0.3 * np.sin(2 * np.pi * 300 * seconds) * (np.mod(seconds, 1) < 0.1)


def first_beep(wave: np.ndarray, rate: int = 22050) -> float:
    """When it is first loud, in seconds."""
    return float(np.flatnonzero(np.abs(wave) > 0.1)[0]) / rate


def write_sound_video(
    path: Path,
    seconds: float,
    sound: Callable[[np.ndarray], np.ndarray] | None = beeps,
    rate: int = 16000,
    channels: int = 1,
    sound_from: float = 0.0,
    size: tuple[int, int] = (64, 48),
    bars: int = 0,
) -> Path:
    """Write a video; ``sound`` None: without a sound track; ``bars``: black lines above and below the picture."""
    import av

    width, height = size
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"g": "16", "bf": "0"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        if sound is not None:
            audio = container.add_stream("aac", rate=rate, layout="mono" if channels == 1 else "stereo")
            times = np.arange(round(seconds * rate)) / rate
            wave = sound(times[times >= sound_from]).astype(np.float32)
            first = len(times) - len(wave)
            for begin in range(0, len(wave), 1024):
                block = np.repeat(wave[None, begin : begin + 1024], channels, 0)
                frame = av.AudioFrame.from_ndarray(block, "fltp", "mono" if channels == 1 else "stereo")
                frame.sample_rate, frame.pts, frame.time_base = rate, first + begin, Fraction(1, rate)
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
        for number in range(round(seconds * FPS)):
            picture = np.zeros((height, width, 3), np.uint8)
            picture[bars : height - bars] = 40 + round(number / FPS) * 10 % 210
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(video.encode(None))
    return path
