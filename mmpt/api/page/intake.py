"""What the page takes in: videos by what is in them, not by their names, and only so long."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmpt.api.page.shelf import Shelf
from mmpt.store.browser_copies import plays_in_browsers, write_browser_copy
from mmpt.store.decode import probe
from mmpt.store.video_info import open_video
from mmpt.utils.errors import DataError

__all__ = ["ChosenVideo", "choose_video", "playable"]


@dataclass(frozen=True)
class ChosenVideo:
    """A video that was looked at.

    ``name`` is what the person calls it; ``played`` the token of what a browser plays, None if nothing yet; ``copied``
    whether that is a copy.
    """

    path: str
    name: str
    token: str
    seconds: float
    codec: str
    played: str | None
    copied: bool = False


def choose_video(path: str | os.PathLike[str], name: str, shelf: Shelf, most_seconds: float | None) -> ChosenVideo:
    """Look at a video and put it on the shelf.

    Args:
        path: of the file.
        name: what messages call it; never the path.
        shelf: of what may be played.
        most_seconds: that it may last; None: any, and what the file says of its length is believed.

    Raises:
        DataError: if it is no video, or longer.
    """
    token = shelf.add(path, name)
    try:
        info = probe(path)
        with open_video(path) as (container, stream):
            plays = plays_in_browsers(container, stream)
            counted = 0.0 if most_seconds is None else _seconds_of_packets(container, stream)
    except DataError as error:
        raise DataError(str(error).replace(str(path), name)) from error
    seconds = max(counted, info.duration or 0.0)
    if most_seconds is not None and seconds > most_seconds:
        raise DataError(f"{name}: lasts {seconds:.0f} s; this page takes at most {most_seconds:.0f} s. Cut a part out")
    return ChosenVideo(str(path), name, token, seconds, info.codec, token if plays else None)


def playable(video: ChosenVideo, shelf: Shelf, folder: Path) -> ChosenVideo:
    """Return a video that browsers play: itself, or with a copy in ``folder``, made once.

    Raises:
        DataError: if no copy can be made.
    """
    if video.played is not None:
        return video
    changed = os.stat(video.path).st_mtime_ns
    wanted = folder / f"{video.token}-{changed}"
    made = list(folder.glob(f"{wanted.name}.*"))
    try:
        copy = made[0] if made else write_browser_copy(video.path, wanted)
    except DataError as error:
        raise DataError(str(error).replace(video.path, video.name)) from error
    return replace(video, played=shelf.add(copy, video.name), copied=True)


def _seconds_of_packets(container: Any, stream: Any) -> float:
    """Return where the last packet ends: what a file says of its length may be wrong."""
    last = first = None
    for packet in container.demux(stream):
        if packet.pts is not None:
            first = packet.pts if first is None else min(first, packet.pts)
            last = max(last or packet.pts, packet.pts + (packet.duration or 0))
    return 0.0 if last is None or first is None else float((last - first) * stream.time_base)
