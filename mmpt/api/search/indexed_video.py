"""A video under way into an index: one decoding gives the model its pictures, and the index its thumbnails."""

import bisect
import math
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeVar

import numpy as np

from mmpt.api.video_sources import FileSource
from mmpt.store.decode import Picture
from mmpt.store.images import encode_jpeg

__all__ = ["IndexedVideo", "Turns"]

T = TypeVar("T")

_QUALITY = 70
_NO_MORE: Any = object()


class Turns:
    """Videos take turns at one model: ``with turns`` holds it, and :meth:`decoded` lets go of it while it decodes."""

    def __init__(self) -> None:
        self._model = threading.Lock()
        self._stopped = False

    def __enter__(self) -> None:
        self._model.acquire()

    def __exit__(self, *error: object) -> None:
        self._model.release()

    def stop(self) -> None:
        """Let videos that are under way end with ``CancelledError`` at their next block."""
        self._stopped = True

    def decoded(self, blocks: Iterator[T]) -> Iterator[T]:
        """Yield what an iterator yields, for one that holds the model."""
        while True:
            self._model.release()
            try:
                block = next(blocks, _NO_MORE)
            finally:
                self._model.acquire()
            if self._stopped:
                raise CancelledError
            if block is _NO_MORE:
                return
            yield block


class IndexedVideo(FileSource):
    """A file whose small pictures are kept while it is decoded for the model.

    Args:
        path: of the video.
        turns: at the model, which is held by whoever reads this.
        pixels: shorter side of thumbnails; 0: none.
        every: seconds between two of the pictures that thumbnails are chosen from.
    """

    def __init__(self, path: str | os.PathLike[str], turns: Turns, pixels: int, every: float) -> None:
        super().__init__(path)
        self._turns, self._every = turns, every
        self._cell = -1
        self._seconds: list[float] = []
        self._files: list[bytes] = []
        self._scale = Picture(pixels, enlarge=False)
        if pixels:
            self.on_picture = self._keep

    def pictures(self, times: Sequence[float]) -> Iterator[np.ndarray]:
        """Decode as a file does, without the model."""
        return self._turns.decoded(super().pictures(times))

    def stream(self, fps: float, resize: int, crop: int, hflip: bool, block: int) -> Iterator[np.ndarray]:
        """Decode as a file does, without the model."""
        return self._turns.decoded(super().stream(fps, resize, crop, hflip, block))

    def _keep(self, frame: Any, second: float) -> None:
        cell = math.floor(second / self._every + 1e-6)
        if cell > self._cell:
            self._cell = cell
            self._seconds.append(second)
            self._files.append(encode_jpeg(self._scale(frame), _QUALITY))

    def thumbnails(self, starts: np.ndarray, ends: np.ndarray) -> list[bytes]:
        """Return for each clip the JPEG file that is nearest to its middle; none where none were kept."""
        return [self._files[self._nearest(second)] for second in ((starts + ends) / 2).tolist() if self._files]

    def _nearest(self, second: float) -> int:
        behind = bisect.bisect_left(self._seconds, second)
        beside = [place for place in (behind - 1, behind) if 0 <= place < len(self._seconds)]
        return min(beside, key=lambda place: abs(self._seconds[place] - second))
