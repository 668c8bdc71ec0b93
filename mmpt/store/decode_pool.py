"""Decoding many videos in threads, ahead of the network or the file that consumes what they yield.

PyAV releases the interpreter while it decodes and scales, so that threads overlap with the consumer;
a bounded queue keeps memory constant. A decoder that does not come back is left behind: its video is given up, and
another thread takes its place.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmpt.store.video_frames import DecodeReport
from mmpt.store.video_list import VideoItem
from mmpt.utils.errors import DataError, StorageError
from mmpt.utils.extras import MissingExtraError

__all__ = ["Decode", "Piece", "PoolOptions", "decode_pieces"]

logger = logging.getLogger(__name__)

#: Decoding may always take this many times as long as the video; the time-out comes on top.
SLOWEST = 10.0
_LOOK_SECONDS = 0.2
_JOIN_SECONDS = 5.0
_MOST_LEFT_BEHIND = 16


#: What decoding one video yields: (a part of it, or None; how many seconds of it were decoded for that).
Decode = Callable[[VideoItem, DecodeReport], Iterator[tuple[Any, float]]]


@dataclass(frozen=True)
class PoolOptions:
    """How to decode many videos.

    ``workers``: decoding threads; 0 decodes in between. ``timeout_seconds``: a video is given up when its decoding has
    taken this long and :data:`SLOWEST` times the seconds decoded so far; time spent waiting for the consumer does not
    count. Without ``workers`` that is only looked at between parts, and a decoder that hangs is not ended.
    """

    workers: int = 1
    timeout_seconds: float = 600.0


@dataclass
class Piece:
    """A part of a video as its decoding yields it, or (``content`` None) its end, with the report or an error."""

    item: VideoItem
    content: Any = None
    report: DecodeReport = field(default_factory=DecodeReport)
    seconds: float = 0.0
    error: str | None = None


class _Clock:
    """The time that decoding one video has taken, and may take, in seconds."""

    def __init__(self, allowed: float) -> None:
        self.allowed, self.spent = allowed, 0.0
        self._since: float | None = None

    def start(self) -> None:
        self._since = time.monotonic()

    def stop(self) -> None:
        self.spent, self._since = self.spent + time.monotonic() - (self._since or 0.0), None

    def exceeded(self) -> bool:
        """Tell whether the time is used up; only while it runs or right after."""
        since = self._since
        return self.spent + (0.0 if since is None else time.monotonic() - since) > self.allowed

    def hangs(self) -> bool:
        """Tell whether the decoder is at work and the time is used up."""
        return self._since is not None and self.exceeded()


class _Worker(threading.Thread):
    """Decodes one video after another; ``task`` is the one in hand. ``left_behind``: that video is given up."""

    def __init__(self, pool: "_Pool") -> None:
        super().__init__(name="decode", daemon=True)  # what hangs must not keep the process from ending
        self.pool = pool
        self.task: tuple[VideoItem, _Clock] | None = None
        self.left_behind = False

    def run(self) -> None:
        try:
            while (task := self.pool.next_task(self)) is not None:
                item, clock = task
                if not all(self._put(piece) for piece in _pieces(item, self.pool.decode, clock)):
                    return
            self._put(None)
        except BaseException as error:  # raised again where the pieces are consumed
            self._put(error)

    def has_given_up(self, item: VideoItem) -> bool:
        """Tell whether an item is the one in hand when the worker was left behind; what it did before counts."""
        return self.left_behind and self.task is not None and self.task[0] is item

    def _put(self, thing: Piece | BaseException | None) -> bool:
        while not (self.pool.stop.is_set() or self.left_behind):
            try:
                self.pool.ready.put((self, thing), timeout=_LOOK_SECONDS)
                return True
            except queue.Full:
                continue
        return False


class _Pool:
    """Threads that decode, and what they have ready."""

    def __init__(self, items: Sequence[VideoItem], decode: Decode, options: PoolOptions) -> None:
        self.decode, self.options = decode, options
        self.size = min(options.workers, len(items))
        self.stop = threading.Event()
        # the bound of the queue bounds the memory
        self.ready: queue.Queue[tuple[_Worker, Piece | BaseException | None]] = queue.Queue(maxsize=2 * self.size)
        self.workers: list[_Worker] = []
        self.left_behind: list[_Worker] = []
        self._waiting, self._lock = iter(items), threading.Lock()
        self._unfinished = {id(item): item for item in items}

    def next_task(self, worker: _Worker) -> tuple[VideoItem, _Clock] | None:
        """Give a worker the next video; None if there is none, or the worker was left behind."""
        with self._lock:
            if worker.left_behind or (item := next(self._waiting, None)) is None:
                return None
            worker.task = (item, _Clock(self.options.timeout_seconds))
            return worker.task

    def run(self) -> Iterator[Piece]:
        try:
            for piece in self._pieces_and_ends():
                if piece.content is None:
                    del self._unfinished[id(piece.item)]
                yield piece
            if self._unfinished:
                lost = ", ".join(item.path for item in self._unfinished.values())
                raise RuntimeError(f"videos without an end, a mistake in the program: {lost}")
        finally:
            self.stop.set()
            until = time.monotonic() + _JOIN_SECONDS  # a decoder that hangs is not waited for
            for worker in self.workers:
                worker.join(max(0.0, until - time.monotonic()))

    def _pieces_and_ends(self) -> Iterator[Piece]:
        for _ in range(self.size):
            self._start()
        looked = time.monotonic()
        while self.workers:
            try:
                worker, thing = self.ready.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                pass
            else:
                if isinstance(thing, Piece):
                    if not worker.has_given_up(thing.item):
                        yield thing
                elif not worker.left_behind:
                    if thing is not None:
                        raise thing
                    self.workers.remove(worker)
            if time.monotonic() - looked >= _LOOK_SECONDS:
                yield from self._give_up()
                looked = time.monotonic()

    def _start(self) -> None:
        self.workers.append(_Worker(self))
        self.workers[-1].start()

    def _give_up(self) -> Iterator[Piece]:
        """Leave behind the workers whose decoder hangs, and put others in their place."""
        for worker in list(self.workers):
            with self._lock:  # or it could take another video, which would be lost
                task = worker.task
                if task is None or not task[1].hangs():
                    continue
                worker.left_behind = True
            self.workers.remove(worker)
            self.left_behind = [*(other for other in self.left_behind if other.is_alive()), worker]
            if len(self.left_behind) > _MOST_LEFT_BEHIND:
                raise StorageError(
                    f"{task[0].path}: decoding hangs, and so it does for {len(self.left_behind) - 1} other videos: is "
                    "their disk reachable? The same command goes on from here"
                )
            self._start()
            yield Piece(task[0], seconds=task[1].allowed, error=_took_too_long(*task))


def decode_pieces(items: Sequence[VideoItem], decode: Decode, options: PoolOptions) -> Iterator[Piece]:
    """Yield the parts of all videos, each video's in order, then its end; videos interleave with several workers.

    Args:
        items: videos or clips.
        decode: called in a worker's thread for each; what it raises becomes the error of that video's end. It should
            yield every few seconds of video, if only ``(None, seconds)``, which shows that it comes on.
        options: workers and time-out.

    Raises:
        StorageError: if many decoders hang at the same time.
        MissingExtraError: if PyAV is not installed.
    """
    if min(options.workers, len(items)) < 1:
        for item in items:
            yield from _pieces(item, decode, _Clock(options.timeout_seconds))
        return
    yield from _Pool(items, decode, options).run()


def _took_too_long(item: VideoItem, clock: _Clock) -> str:
    return f"{item.path}: decoding took longer than {clock.allowed:g} s and was given up (--video-timeout)"


def _pieces(item: VideoItem, decode: Decode, clock: _Clock) -> Iterator[Piece]:
    report = DecodeReport()
    end = Piece(item, report=report)
    try:
        parts = decode(item, report)
        while True:
            clock.start()
            try:
                part = next(parts, None)
            finally:
                clock.stop()
            if part is None:
                break
            content, seconds = part
            clock.allowed += SLOWEST * seconds
            if clock.exceeded():
                raise DataError(_took_too_long(item, clock))
            if content is not None:
                yield Piece(item, content)
    except MissingExtraError:  # concerns all videos
        raise
    except DataError as error:
        end.error = str(error)
    except Exception as error:  # whatever a decoder makes of one broken file must not end the whole run
        logger.debug("%s", item.path, exc_info=True)
        end.error = f"{item.path}: decoding failed ({type(error).__name__}: {error})"
    end.seconds = clock.spent
    yield end
