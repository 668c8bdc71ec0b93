"""Opening video files and what they say about themselves, through PyAV.

Everything that needs to know FFmpeg's habits is here: which stream is the video, what the
display matrix means, where time zero lies, how long the file claims to be.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils.errors import DataError
from mmpt.utils.extras import require

__all__ = [
    "VideoInfo",
    "decoder_version",
    "display_transform",
    "open_container",
    "open_video",
    "orient",
    "stated_duration",
    "video_stream",
]

# Demuxers that turn text, playlists or single pictures into "videos"
_NOT_VIDEO = {"tty", "hls", "dash", "concat", "concatf", "sdp", "rtsp", "image2", "image2pipe", "lavfi", "ffmetadata"}


@dataclass(frozen=True)
class VideoInfo:
    """What is known about a video without decoding it all.

    ``width`` and ``height`` are those of the upright picture, after ``rotation`` (degrees counter-clockwise that
    the display matrix turns the stored picture). ``fps`` is the average rate, ``duration`` is in seconds;
    both and ``frames`` are None where the file does not say.
    """

    width: int
    height: int
    fps: float | None
    duration: float | None
    rotation: int
    frames: int | None
    codec: str


def decoder_version() -> str:
    """Return the name and versions of the decoder, for provenance records."""
    av = require("av", "video")
    codec = ".".join(str(part) for part in av.library_versions["libavcodec"])
    return f"PyAV {av.__version__}, libavcodec {codec}"


@contextmanager
def open_container(path: str | os.PathLike[str], kind: str = "video") -> Iterator[Any]:
    """Open a media file and yield its container.

    Args:
        path: a local file; nothing else is ever opened, whatever the file refers to.
        kind: what errors call it: video, sound.

    Raises:
        DataError: if there is no such file or FFmpeg cannot read it; names it.
        MissingExtraError: if PyAV is not installed.
    """
    av = require("av", "video")
    file = Path(path)
    try:
        status = os.stat(file)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such {kind} file") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({_reason(error)})") from error
    if not stat.S_ISREG(status.st_mode):  # to open a pipe that nobody writes into is to wait for ever
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
        raise DataError(f"{path}: no such {kind} file: it is {what}")
    if status.st_size == 0:
        raise DataError(f"{path}: the file is empty")
    try:
        # "file:" keeps names with a colon from being read as a protocol
        container = av.open(
            f"file:{file.absolute()}", options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a {kind} that FFmpeg can read ({_reason(error)})") from error
    with container:
        names = set(container.format.name.split(","))
        if names & _NOT_VIDEO or any(name.endswith("_pipe") for name in names):
            raise DataError(f"{path}: not a {kind} file but {container.format.name!r}")
        yield container


def video_stream(container: Any) -> Any | None:
    """Return the first video stream that is not a cover picture, None if there is none."""
    return next((stream for stream in container.streams.video if not _is_picture(stream)), None)


@contextmanager
def open_video(path: str | os.PathLike[str], threads: int = 1) -> Iterator[tuple[Any, Any]]:
    """Open a file and yield (container, video stream), the stream being the first that is not a cover picture.

    Args:
        path: a local file; nothing else is ever opened, whatever the file refers to.
        threads: decoding threads; damaged files decode alike everywhere only with 1.

    Raises:
        DataError: if there is no such file or it is not a video; names it.
        MissingExtraError: if PyAV is not installed.
    """
    with open_container(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise DataError(f"{path}: the file has no video stream")
        if stream.codec_context is None:
            raise DataError(f"{path}: FFmpeg has no decoder for its video stream")
        stream.thread_count = threads
        stream.thread_type = "AUTO" if threads > 1 else "NONE"
        yield container, stream


def stated_duration(container: Any, stream: Any) -> Fraction | None:
    """Return the length of the video stream in seconds as the file states it, or None.

    The container's length counts only where nothing but video could account for it.
    """
    if stream.duration:
        return stream.duration * stream.time_base
    tag = _clock_tag(stream.metadata.get("DURATION", ""))
    if tag:
        return tag
    if container.duration and all(other.type == "video" for other in container.streams):
        return Fraction(container.duration, 1_000_000)
    return None


def display_transform(frame: Any) -> tuple[bool, bool, bool]:
    """Return (transpose, flip left-right, flip top-bottom), to be applied in this order, for an upright picture.

    The display matrix maps a stored pixel (x, y) to (a x + c y, b x + d y); turns by other than
    quarter circles round to the nearest.
    """
    matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(matrix)[:20], "<i4").tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


def orient(image: np.ndarray, transform: tuple[bool, bool, bool]) -> np.ndarray:
    """Apply a :func:`display_transform` to a picture (height, width, channels); returns a view."""
    transpose, left_right, top_bottom = transform
    if transpose:
        image = image.swapaxes(0, 1)
    if left_right:
        image = image[:, ::-1]
    return image[::-1] if top_bottom else image


def _is_picture(stream: Any) -> bool:
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def _clock_tag(text: str) -> Fraction | None:
    """Parse Matroska's ``00:01:02.500000000``."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except (ValueError, ZeroDivisionError):
        return None


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
