"""Decoding many videos in threads, ahead of the network that consumes their seconds.

PyAV releases the interpreter while it decodes and scales, so that threads overlap with the network;
a bounded queue keeps memory constant.
"""

import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mmpt.store.decode import DecodeReport, stream_frames
from mmpt.store.video_list import VideoItem
from mmpt.utils.errors import DataError
from mmpt.utils.extras import MissingExtraError

__all__ = ["ExtractionOptions", "FrameEncoder", "Piece", "decode_pieces"]

logger = logging.getLogger(__name__)


class FrameEncoder(Protocol):
    """What extraction needs of an encoder; see :class:`mmpt.modules.feature_encoders.FeatureEncoder`."""

    fps: int
    size: int
    resize: int
    dim: int
    pad: Any

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Map (seconds, fps, size, size, 3) uint8 to (seconds, dim) float32."""

    def provenance(self) -> dict[str, Any]:
        """Return what the features depend on."""


@dataclass(frozen=True)
class ExtractionOptions:
    """How to extract.

    ``batch_size``: seconds of video per forward pass. ``workers``: decoding threads beside the network;
    0 decodes in between. ``half_precision``: store float16, else float32. ``hflip``: mirror the frames.
    ``force``: also extract videos again whose features are there.
    """

    batch_size: int = 8
    workers: int = 1
    half_precision: bool = True
    hflip: bool = False
    force: bool = False


@dataclass
class Piece:
    """Some seconds of a video, or (``frames`` None) its end, with the report or an error."""

    item: VideoItem
    frames: np.ndarray | None = None
    report: DecodeReport = field(default_factory=DecodeReport)
    seconds: float = 0.0
    error: str | None = None


def decode_pieces(items: Sequence[VideoItem], encoder: FrameEncoder, options: ExtractionOptions) -> Iterator[Piece]:
    """Yield the pieces of all videos, each video's in order; videos interleave with several workers."""
    workers = min(options.workers, len(items))
    if workers < 1:
        for item in items:
            yield from _pieces(item, encoder, options)
        return
    waiting = iter(items)
    lock, stop = threading.Lock(), threading.Event()
    ready: queue.Queue[Piece | BaseException | None] = queue.Queue(maxsize=2 * workers)  # bounds the memory

    def put(thing: Piece | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put(thing, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            while True:
                with lock:
                    item = next(waiting, None)
                if item is None or not all(put(piece) for piece in _pieces(item, encoder, options)):
                    break
            put(None)
        except BaseException as error:  # raised again where the pieces are consumed
            put(error)

    threads = [threading.Thread(target=work, name=f"decode-{number}", daemon=True) for number in range(workers)]
    for thread in threads:
        thread.start()
    try:
        running = workers
        while running:
            thing = ready.get()
            if isinstance(thing, BaseException):
                raise thing
            if thing is None:
                running -= 1
            else:
                yield thing
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _pieces(item: VideoItem, encoder: FrameEncoder, options: ExtractionOptions) -> Iterator[Piece]:
    report = DecodeReport()
    end = Piece(item, report=report)
    try:
        frames = stream_frames(
            item.path,
            encoder.fps,
            encoder.resize,
            crop_size=encoder.size,
            start=item.start,
            end=item.end,
            hflip=options.hflip,
            block=options.batch_size * encoder.fps,
            report=report,
        )
        while True:
            started = time.perf_counter()
            block = next(frames, None)
            end.seconds += time.perf_counter() - started
            if block is None:
                break
            yield Piece(item, _whole_seconds(block, encoder.fps, encoder.pad))
    except MissingExtraError:  # concerns all videos
        raise
    except DataError as error:
        end.error = str(error)
    except Exception as error:  # whatever a decoder makes of one broken file must not end the whole run
        logger.debug("%s", item.path, exc_info=True)
        end.error = f"{item.path}: decoding failed ({type(error).__name__}: {error})"
    yield end


def _whole_seconds(block: np.ndarray, fps: int, pad: str) -> np.ndarray:
    """Fill up the last second: (frames, H, W, 3) -> (seconds, fps, H, W, 3)."""
    short = -len(block) % fps
    if short:
        filling = np.zeros_like(block[:1]) if pad == "zero" else block[-1:]
        block = np.concatenate([block, np.repeat(filling, short, 0)])
    return block.reshape(-1, fps, *block.shape[1:])
