"""Copies of videos that browsers play, with the times of the original: what is at second 3 there is at second 3 here.

Browsers play few of the codecs and containers that FFmpeg reads: no AVI, no MPEG-4 part 2, not all of them Matroska.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from mmpt.store.decode import Picture
from mmpt.store.video_frames import DecodeReport, clock_zero, first_picture, timed_frames
from mmpt.store.video_info import open_video
from mmpt.utils.errors import DataError
from mmpt.utils.extras import require

__all__ = ["plays_in_browsers", "write_browser_copy"]

_FREE = frozenset({"vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d"})
_PIXELS = frozenset({"yuv420p", "yuvj420p"})
#: Encoder, its container, and its options: small, quick to make, and quick to seek in.
_ENCODERS = (
    ("libx264", "mp4", {"preset": "veryfast", "crf": "27", "maxrate": "1500k", "bufsize": "3000k"}),
    ("libvpx", "webm", {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "1000k"}),
)
_CLOCK = Fraction(1, 90_000)


def plays_in_browsers(container: Any, stream: Any) -> bool:
    """Tell whether Chromium and Firefox play the pictures of an open file."""
    names = set(container.format.name.split(","))
    codec, pixels = stream.codec_context.name, stream.codec_context.pix_fmt
    return bool((codec in _FREE and names & {"mp4", "webm"}) or (_is_h264(codec, pixels) and "mp4" in names))


def write_browser_copy(
    path: str | os.PathLike[str], target: str | os.PathLike[str], *, shorter_side: int = 360, most_bytes: int = 1 << 28
) -> Path:
    """Write a copy that browsers play, without sound, and return its path.

    H.264 of Matroska is packed anew as it is, anything else is encoded anew.

    Args:
        path: of the video.
        target: of the copy, without an ending.
        shorter_side: pixels; smaller videos keep their size.
        most_bytes: that the copy may have.

    Raises:
        DataError: if the video cannot be decoded, or the copy would be larger; names the video.
        MissingExtraError: if PyAV is not installed.
    """
    av = require("av", "video")
    target = Path(target)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=target.parent) as folder:
        draft = Path(folder) / "draft"
        try:
            ending = _packed_anew(av, path, draft, most_bytes) or _encoded_anew(
                av, path, draft, shorter_side, most_bytes
            )
        except (av.FFmpegError, ValueError) as error:
            raise DataError(f"{path}: no copy for browsers can be made ({error})") from error
        done = target.with_name(f"{target.name}.{ending}")
        draft.replace(done)
    return done


def _is_h264(codec: str, pixels: str | None) -> bool:
    return codec == "h264" and pixels in _PIXELS


def _packed_anew(av: Any, path: str | os.PathLike[str], draft: Path, most_bytes: int) -> str | None:
    """Copy the packets into MP4; return its ending, or None where that cannot be done."""
    with open_video(path) as (container, stream):
        names = set(container.format.name.split(","))
        context = stream.codec_context
        if not (_is_h264(context.name, context.pix_fmt) and "matroska" in names):
            return None
        first = first_picture(container, stream)
        if first is None or os.path.getsize(path) > most_bytes:
            return None
        shift = round(clock_zero(container, first) / stream.time_base)
        container.seek(container.start_time or 0)
        clock = iter(_decoding_clock([packet.pts - shift for packet in _stamped(container, stream)]))
        container.seek(container.start_time or 0)
        try:
            with av.open(str(draft), "w", format="mp4", options={"movflags": "faststart"}) as output:
                copied = output.add_stream_from_template(stream)
                for packet in _stamped(container, stream):
                    packet.pts, packet.dts, packet.stream = packet.pts - shift, next(clock), copied
                    output.mux(packet)
        except (av.FFmpegError, ValueError, StopIteration):
            return None
    return "mp4"


def _stamped(container: Any, stream: Any) -> Iterator[Any]:
    return (packet for packet in container.demux(stream) if packet.pts is not None and packet.size)


def _decoding_clock(shown: Sequence[int]) -> list[int]:
    """Return when to decode packets that are shown at these times: never backwards, and none after it is shown.

    Matroska does not say.
    """
    ordered = sorted(shown)
    delay = max((there - at for there, at in zip(ordered, shown, strict=True)), default=0)
    return [there - delay for there in ordered]


def _encoded_anew(av: Any, path: str | os.PathLike[str], draft: Path, shorter_side: int, most_bytes: int) -> str:
    name, ending, options = next(known for known in _ENCODERS if _has_encoder(av, known[0]))
    picture = Picture(shorter_side, enlarge=False)
    with open_video(path) as (container, stream), av.open(str(draft), "w", format=ending) as output:
        rate = Fraction(stream.guessed_rate or stream.average_rate or 25).limit_denominator(1001)
        made, size = None, 0
        for frame, begins, _ in timed_frames(container, stream, Fraction(0), DecodeReport()):
            pixels = picture(frame)
            pixels = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]
            if made is None:
                made = output.add_stream(name, rate=rate, options=options)
                made.height, made.width, made.pix_fmt = *pixels.shape[:2], "yuv420p"
                made.codec_context.time_base, made.codec_context.gop_size = _CLOCK, max(1, round(rate))
            shown = av.VideoFrame.from_ndarray(pixels.copy(), format="rgb24")
            shown.pts, shown.time_base = round(begins / _CLOCK), _CLOCK
            packets = made.encode(shown)
            output.mux(packets)
            size += sum(packet.size for packet in packets)
            if size > most_bytes:
                raise DataError(f"{path}: a copy for browsers would have more than {most_bytes >> 20} MB")
        if made is None:
            raise DataError(f"{path}: no frame can be decoded")
        output.mux(made.encode())
    return ending


def _has_encoder(av: Any, name: str) -> bool:
    try:
        av.codec.Codec(name, "w")
    except (av.FFmpegError, ValueError):
        return False
    return True
