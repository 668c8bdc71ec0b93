"""The data path of systems that see segments of videos (MERLOT, MERLOT Reserve): stored segments -> records of them.

A segment is a frame, the words spoken around it and maybe its sound; MERLOT calls it a chunk. An item is a record of N
segments, mostly of one video.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mmpt.processors.base import UnusableItemError
from mmpt.processors.frame_transforms import refuse_oblong
from mmpt.processors.segment_images import MERLOTTransform, ReserveTransform
from mmpt.store.images import decode_image
from mmpt.store.segment_store import SegmentStore, StoredSegments, open_segments
from mmpt.utils.distributed import is_main_process
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import file_sha256, resolve_path
from mmpt.utils.options import read_options
from mmpt.utils.subwords import Subwords, load_subwords, subwords_files

__all__ = [
    "Piece",
    "Record",
    "RecordSegments",
    "SegmentOptions",
    "SegmentTextOptions",
    "SegmentTextProcessor",
    "SegmentVideoProcessor",
    "check_tokenizer",
    "open_store",
    "subwords_of_kind",
]

logger = logging.getLogger(__name__)


@dataclass
class SegmentOptions:
    """Where the segments lie.

    Attributes:
        segment_path: the folder of the segment store.
    """

    segment_path: str | None = None


@dataclass
class SegmentTextOptions(SegmentOptions):
    """Of which encoding the stored ids are.

    Attributes:
        tokenizer: its folder or file.
    """

    tokenizer: str | None = None


class Piece(NamedTuple):
    """Consecutive segments of one video."""

    video_id: str
    first: int
    length: int


class Record(tuple[Piece, ...]):
    """The segments of one item, as pieces of videos; equal in every process, and pickled with the rest of the data."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """What to call it: ``video:first-last``, joined by blanks."""
        return " ".join(f"{video_id}:{first}-{first + count - 1}" for video_id, first, count in self)

    def sources(self) -> np.ndarray:
        """Return which video each segment is of, int64 (N,): 0 the first, one more wherever another begins.

        A segment that does not come after the one before it in their video begins another, too: a last record that
        is filled up with the first segments may hold some twice.
        """
        begins = [
            last is None or last.video_id != piece.video_id or piece.first < last.first + last.length
            for last, piece in zip([None, *self][:-1], self, strict=True)
        ]
        return np.repeat(np.cumsum(begins, dtype=np.int64) - 1, [piece.length for piece in self])


class RecordSegments:
    """The stored segments of one record, read when asked for.

    Attributes:
        record: which they are.
        fields: what the store holds of each.
        sources: int64 (N,), as :meth:`Record.sources`.

    Args:
        store: of the segments.
        record: which.

    Raises:
        DataError: if the store lacks a video or a segment; names it.
    """

    def __init__(self, store: SegmentStore, record: Record) -> None:
        self.record, self.fields, self.sources = record, store.fields, record.sources()
        self._places: list[tuple[StoredSegments, int]] = []
        self._names = [piece.video_id for piece in record for _ in range(piece.length)]
        for video_id, first, count in record:
            stored = store[video_id]
            if first + count > len(stored):
                raise DataError(
                    f"video {video_id!r}: {len(stored)} segments in {store.path}, and segment {first + count - 1} is"
                    " listed: the store was changed since the data were opened"
                )
            self._places.extend((stored, k) for k in range(first, first + count))

    def __len__(self) -> int:
        return len(self._places)

    def where(self, n: int) -> str:
        """Return what to call segment ``n`` in an error."""
        return f"video {self._names[n]}: segment {self._places[n][1]}"

    def image(self, n: int) -> np.ndarray:
        """Return the frame of segment ``n``, decoded, uint8 (height, width, 3).

        Raises:
            UnusableItemError: if it is damaged; names video and segment. A dataset may take another item in its place.
        """
        stored, k = self._places[n]
        try:
            return refuse_oblong(decode_image(stored.image(k)))
        except DataError as error:
            raise UnusableItemError(f"{self.where(n)}: {error}") from error

    def frames(self, transform: MERLOTTransform | ReserveTransform, rng: np.random.Generator | None) -> np.ndarray:
        """Return the frames of all segments, each brought to one size: uint8 (N, 3, height, width).

        Args:
            transform: makes uint8 (3, height, width) of a frame, each where it stands among the others.
            rng: of the transform, in training.

        Raises:
            UnusableItemError: if one is damaged; names video and segment.
        """
        pixels = np.empty((len(self), 3, *transform.size), np.uint8)
        for n in range(len(self)):
            transform(self.image(n), rng, pixels[n])
        return pixels

    def spectrogram(self, n: int) -> np.ndarray:
        """Return the log-mel spectrogram of segment ``n``, float16 (188, 64)."""
        stored, k = self._places[n]
        return stored.spectrogram(k)

    def tokens(self, n: int) -> np.ndarray:
        """Return the ids of the words of segment ``n``, int32 (tokens,)."""
        stored, k = self._places[n]
        return stored.tokens(k)

    def raw_tokens(self, n: int) -> np.ndarray:
        """Return the ids of the second transcript of segment ``n``, int32 (tokens,)."""
        stored, k = self._places[n]
        return stored.raw_tokens(k)

    def token_times(self, n: int) -> np.ndarray:
        """Return start and end of each token of segment ``n``, float32 (tokens, 2), seconds from its start as played.

        Raises:
            DataError: if they are not one pair for each token; names video and segment.
        """
        stored, k = self._places[n]
        times = stored.token_times(k)
        if times.shape != (len(stored.tokens(k)), 2):
            raise DataError(f"{self.where(n)}: {len(stored.tokens(k))} tokens and times of shape {times.shape}")
        return times

    def speed(self, n: int) -> float:
        """Return how much faster than the video segment ``n`` is played."""
        stored, k = self._places[n]
        return float(stored.speed[k])

    def times(self, n: int) -> tuple[float, float]:
        """Return start and end of segment ``n`` in its video, in seconds."""
        stored, k = self._places[n]
        start, end = stored.times[k]
        return float(start), float(end)

    def meta(self, n: int) -> dict[str, Any]:
        """Return what is known of the video of segment ``n``."""
        return self._places[n][0].meta


class SegmentVideoProcessor:
    """Find the stored segments of a record; nothing is decoded yet."""

    config_options: ClassVar[dict[str, type]] = {"dataset": SegmentOptions}

    def __init__(self, config: Any) -> None:
        """Open the store.

        Raises:
            ConfigError: if ``segment_path`` is not set.
            DataError: if there is no such store.
        """
        self.store = open_store(config)

    def __call__(self, video_id: Sequence[Piece]) -> RecordSegments:
        """Return the segments of a record; DataError if the store lacks some, names the video."""
        return RecordSegments(self.store, Record(video_id))


class SegmentTextProcessor:
    """Pass on what the segment store holds of the words of a record: they are ids already."""

    config_options: ClassVar[dict[str, type]] = {"dataset": SegmentTextOptions}

    def __init__(self, config: Any) -> None:
        """Open the store; raises as :class:`SegmentVideoProcessor`, and as :func:`check_tokenizer`."""
        self.store = open_store(config)
        tokenizer = read_options(config, SegmentTextOptions).tokenizer
        if tokenizer:
            check_tokenizer(self.store, tokenizer)

    def __call__(self, text_id: Sequence[Piece], rng: np.random.Generator | None = None) -> RecordSegments:
        """Return the segments of a record; DataError if the store lacks some, names the video."""
        return RecordSegments(self.store, Record(text_id))


def open_store(config: Any) -> SegmentStore:
    """Return the store of ``dataset.segment_path``; ConfigError if that is not set, DataError if there is none."""
    path = read_options(config, SegmentOptions).segment_path
    if not path:
        raise ConfigError("dataset.segment_path: not set; it names the segment store")
    return open_segments(str(resolve_path(path)))


def check_tokenizer(store: SegmentStore, tokenizer: str) -> None:
    """Refuse a store whose ids another tokenizer made, or one of the other system.

    A store that does not say what made them, such as one of imported records, is taken with a warning.

    Raises:
        DataError: if the store says that its ids are others; names it and the tokenizer.
        ConfigError: if there is no such tokenizer.
    """
    facts, kind = store.producer() if len(store) else {}, load_subwords(tokenizer).kind
    made_for, made_by = facts.get("kind"), facts.get("tokenizer")
    again = "extract the segments again with this one, or set dataset.tokenizer to the one that made them"
    if made_for is not None and made_for != kind:
        raise DataError(
            f"{store.path}: its ids are of the kind {made_for}, dataset.tokenizer: {tokenizer} is {kind}; {again}"
        )
    if isinstance(made_by, dict):
        if sorted(made_by.values()) != sorted(file_sha256(file) for file in subwords_files(tokenizer)):
            raise DataError(
                f"{store.path}: another tokenizer made its ids than dataset.tokenizer: {tokenizer}; {again}"
            )
    elif is_main_process():
        logger.warning(
            "%s does not say which tokenizer made its ids: they are read as those of dataset.tokenizer: %s",
            store.path,
            tokenizer,
        )


def subwords_of_kind(path: str | None, kind: str) -> Subwords:
    """Return the tokenizer of ``dataset.tokenizer``, which must be ``merlot``'s or ``reserve``'s.

    Raises:
        ConfigError: if it is not set, is none, or is of the other kind.
    """
    if not path:
        raise ConfigError("dataset.tokenizer: not set; it names the encoding of the stored ids")
    subwords = load_subwords(path)
    if subwords.kind != kind:
        raise ConfigError(f"dataset.tokenizer: {path} is of the kind {subwords.kind}, not {kind}")
    return subwords
