"""What the page takes in: videos by what is in them, not by their names, and only so long."""

import os
from dataclasses import dataclass

from mmpt.api.page.shelf import Shelf
from mmpt.store.decode import probe
from mmpt.store.video_info import open_video
from mmpt.utils.errors import DataError

__all__ = ["ChosenVideo", "choose_video"]

#: What Chromium and Firefox play, of FFmpeg's names of codecs.
_PLAYED = frozenset({"h264", "vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d"})
_CONTAINERS = frozenset({"mp4", "webm"})


@dataclass(frozen=True)
class ChosenVideo:
    """A video that was looked at: file, what the person calls it, token, length, whether browsers play it."""

    path: str
    name: str
    token: str
    seconds: float
    codec: str
    playable: bool


def choose_video(path: str | os.PathLike[str], name: str, shelf: Shelf, most_seconds: float) -> ChosenVideo:
    """Look at a video and put it on the shelf.

    Raises:
        DataError: if it is no video, or longer than ``most_seconds``; says ``name``, never the path.
    """
    token = shelf.add(path, name)
    try:
        info, container, seconds = probe(path), *_container_and_end(path)
    except DataError as error:
        raise DataError(str(error).replace(str(path), name)) from error
    seconds = max(seconds, info.duration or 0.0)
    if seconds > most_seconds:
        raise DataError(f"{name}: lasts {seconds:.0f} s; this page takes at most {most_seconds:.0f} s. Cut a part out")
    playable = info.codec in _PLAYED and bool(container & _CONTAINERS)
    return ChosenVideo(str(path), name, token, seconds, info.codec, playable)


def _container_and_end(path: str | os.PathLike[str]) -> tuple[set[str], float]:
    """Return the names of the container and where its last packet ends: what a file says of its length may be wrong."""
    with open_video(path) as (container, stream):
        last = first = None
        for packet in container.demux(stream):
            if packet.pts is not None:
                first = packet.pts if first is None else min(first, packet.pts)
                last = max(last or packet.pts, packet.pts + (packet.duration or 0))
        length = 0 if last is None or first is None else float((last - first) * stream.time_base)
        return set(container.format.name.split(",")), length
